//! Block devices by label: file system label first, GPT partition name where a label is missing (a file system whose
//! making was cut short has none).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Root;

/// A block device with the names that it goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Kernel name: `vda3`.
    pub name: String,
    /// Label of its file system.
    pub label: Option<String>,
    /// Name in the GPT.
    pub part_name: Option<String>,
}

impl Device {
    /// Path below /dev.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// Every block device that is there now.
///
/// # Errors
/// sysfs cannot be listed.
pub fn scan(root: &Root) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for name in root.list("/sys/class/block")? {
        if ["loop", "ram", "zram"].iter().any(|p| name.starts_with(p)) {
            continue;
        }
        let uevent = root.read_text_opt(&format!("/sys/class/block/{name}/uevent")).unwrap_or_default();
        let part_name =
            uevent.and_then(|text| text.lines().find_map(|l| l.strip_prefix("PARTNAME=")).map(str::to_owned));
        // A device that cannot be read (no medium) has no label.
        let label = root.open_file(&format!("/dev/{name}")).ok().and_then(|file| label_of(&file));
        devices.push(Device { name, label, part_name });
    }
    Ok(devices)
}

/// The one device that goes by `label`, or in its absence by the GPT name `part_name`.
///
/// # Errors
/// Two devices claim the same label: using either would be a guess.
pub fn find<'d>(devices: &'d [Device], label: &str, part_name: &str) -> Result<Option<&'d Device>> {
    let by = |wanted: &dyn Fn(&Device) -> bool| devices.iter().filter(|d| wanted(d)).collect::<Vec<_>>();
    let mut found = by(&|d| d.label.as_deref() == Some(label));
    if found.is_empty() {
        found = by(&|d| d.label.is_none() && d.part_name.as_deref() == Some(part_name));
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        many => {
            let names: Vec<&str> = many.iter().map(|d| d.name.as_str()).collect();
            bail!(
                "label {label} is on more than one device ({}): relabel or unplug all but one",
                names.join(", ")
            )
        }
    }
}

/// The label in a superblock of ext2/3/4 or FAT, if there is one.
fn label_of(file: &File) -> Option<String> {
    let mut head = [0; 2048];
    file.read_exact_at(&mut head, 0).ok()?;
    label_in(&head)
}

/// ext: magic 0xEF53 at 1024+56, label of 16 bytes at 1024+120. FAT: boot signature, label of 11 bytes at 43
/// (FAT12/16, type text at 54) or 71 (FAT32, type text at 82).
fn label_in(head: &[u8; 2048]) -> Option<String> {
    let raw = if head[1080..1082] == [0x53, 0xEF] {
        &head[1144..1160]
    } else if head[510..512] == [0x55, 0xAA] && head[82..85] == *b"FAT" {
        &head[71..82]
    } else if head[510..512] == [0x55, 0xAA] && head[54..57] == *b"FAT" {
        &head[43..54]
    } else {
        return None;
    };
    let text = String::from_utf8_lossy(raw);
    let label = text.trim_end_matches(['\0', ' ']);
    (!label.is_empty()).then(|| label.to_owned())
}

/// Opens a device or image for reading and writing.
///
/// # Errors
/// It is absent or write-protected.
pub fn open_rw(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, label: Option<&str>, part_name: Option<&str>) -> Device {
        Device { name: name.into(), label: label.map(str::to_owned), part_name: part_name.map(str::to_owned) }
    }

    #[test]
    fn label_first_then_partition_name_and_never_a_guess() {
        let devices = [
            device("vda3", Some("COS_OEM"), Some("oem")),
            device("vda6", None, Some("persistent")),
            device("sda1", Some("COS_STATE"), None),
            device("sdb1", Some("COS_STATE"), None),
            device("sdc1", Some("HOME"), Some("recovery")),
        ];
        let found = |label, part| find(&devices, label, part).map(|d| d.map(|d| d.name.clone()));
        assert_eq!(found("COS_OEM", "oem").unwrap().as_deref(), Some("vda3"));
        assert_eq!(found("COS_PERSISTENT", "persistent").unwrap().as_deref(), Some("vda6"));
        assert_eq!(found("COS_RECOVERY", "recovery").unwrap(), None);
        assert!(found("COS_STATE", "state").unwrap_err().to_string().contains("sda1, sdb1"));
    }
}
