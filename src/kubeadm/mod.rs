//! kubeadm's configuration API.
