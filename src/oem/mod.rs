//! Our own documents: cloud-config files from /system/oem and /oem.

pub mod yaml;
