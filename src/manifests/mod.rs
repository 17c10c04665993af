//! Static Pods and addons as pure functions: configuration in, object out. Facts: kubeadm 1.36,
//! `cmd/kubeadm/app/phases/{controlplane,etcd,addons}`.

pub mod control_plane;
pub mod coredns;
pub mod etcd;
pub mod kube_proxy;
pub mod rbac;
pub mod static_pod;
