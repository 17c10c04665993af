//! Certificates and kubeconfigs, as kubeadm lays them out.
//!
//! [`spec`] is the table of what there is, [`keys`] makes keys beside the work, [`issue`] signs, [`check`] decides whether
//! what is there already may stay, [`kubeconfig`] packs a client certificate into a file.

pub mod check;
pub mod der;
pub mod issue;
pub mod keys;
pub mod kubeconfig;
pub mod spec;
