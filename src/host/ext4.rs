//! The label in an ext2/3/4 superblock. Images are relabelled when they are copied (recovery to active, as Kairos does
//! with tune2fs); doing it here needs no program and no second pass.
//! Layout: Linux, Documentation/filesystems/ext4/super.rst.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

const SUPERBLOCK_AT: u64 = 1024;
const LEN: usize = 1024;
const MAGIC: std::ops::Range<usize> = 56..58;
const RO_COMPAT: std::ops::Range<usize> = 100..104;
const LABEL: std::ops::Range<usize> = 120..136;
const CHECKSUM: std::ops::Range<usize> = 1020..1024;
const METADATA_CSUM: u32 = 0x400;

/// Sets the label of the file system in `file`. The caller flushes.
///
/// # Errors
/// There is no ext2/3/4 file system, or the file cannot be read or written.
pub fn set_label(file: &File, label: &str) -> Result<()> {
    let mut block = read(file)?;
    relabel(&mut block, label)?;
    file.write_all_at(&block, SUPERBLOCK_AT).context("writing the superblock")
}

/// The label of the file system in `file`.
///
/// # Errors
/// There is no ext2/3/4 file system, or the file cannot be read.
pub fn label(file: &File) -> Result<String> {
    let block = read(file)?;
    Ok(String::from_utf8_lossy(&block[LABEL]).trim_end_matches('\0').to_owned())
}

fn read(file: &File) -> Result<[u8; LEN]> {
    let mut block = [0; LEN];
    file.read_exact_at(&mut block, SUPERBLOCK_AT).context("reading the superblock")?;
    if block[MAGIC] != [0x53, 0xEF] {
        bail!("no ext2/3/4 file system is in this image");
    }
    Ok(block)
}

fn relabel(block: &mut [u8; LEN], label: &str) -> Result<()> {
    let (bytes, room) = (label.as_bytes(), LABEL.len());
    if bytes.len() > room {
        bail!("label {label:?} is longer than {room} bytes");
    }
    block[LABEL].fill(0);
    block[LABEL.start..LABEL.start + bytes.len()].copy_from_slice(bytes);
    let features = block[RO_COMPAT].iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
    if features & METADATA_CSUM != 0 {
        let sum = crc32c(&block[..CHECKSUM.start]);
        block[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }
    Ok(())
}

/// CRC-32C as the superblock uses it: starting at all ones, not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 0 { c >> 1 } else { c >> 1 ^ 0x82F6_3B78 })
    })
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn checksum_of_the_check_string() {
        // The published check value of CRC-32C over "123456789", without its final inversion.
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }
}
