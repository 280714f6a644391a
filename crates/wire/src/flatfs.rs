//! Kubo's store of blocks in files (flatfs): which block lies in which file.

use data_encoding::BASE32_NOPAD;
use types::Cid;

/// The codec of blocks whose kind is not known: a file says only the hash.
const RAW: u64 = 0x55;
/// Files of blocks end so.
const ENDING: &str = ".data";
/// The longest name read: a hash of 64 bytes with room to spare.
const NAME_BYTES_MAX: usize = 255;

/// Whether the text of the file `SHARDING` is one of this store's; where each file lies is found by looking.
pub fn is_sharding(text: &str) -> bool {
    let rule = text.trim().strip_prefix("/repo/flatfs/shard/v1/").unwrap_or_default();
    matches!(rule.split_once('/'), Some(("prefix" | "suffix" | "next-to-last", number)) if number.parse::<u32>().is_ok())
}

/// The block in a file, under the codec of raw blocks; none for files of another kind.
pub fn block_of_file(file: &str) -> Option<Cid> {
    let letters = file.strip_suffix(ENDING).filter(|letters| letters.len() <= NAME_BYTES_MAX)?;
    let hash = BASE32_NOPAD.decode(letters.as_bytes()).ok()?;
    let cid = [&[1, RAW as u8][..], &hash].concat();
    crate::cids::cid_from_bytes(&cid)
}

/// The file of a block.
pub fn file_of_block(cid: &Cid) -> String {
    format!("{}{ENDING}", BASE32_NOPAD.encode(&cid.hash().to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_their_blocks() {
        // `hello\n` as a raw leaf, as Kubo 0.44 wrote it.
        let file = "CIQFRENVWURNLXYINUH7BMIQ7PM5EG5U7RYWHLZU2CBINIXII33L4AY.data";
        let cid = block_of_file(file).expect("a block");
        assert_eq!(cid.to_string(), "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am");
        assert_eq!(file_of_block(&cid), file);
        for other in ["_README", "SHARDING", ".data", "CIQF.data", "put-123", "ciqfrenv.data", "CIQFRENVWURNLXYINUH7.data.tmp"] {
            assert_eq!(block_of_file(other), None, "{other}");
        }
    }

    #[test]
    fn kinds_of_folders_are_known() {
        for text in ["/repo/flatfs/shard/v1/next-to-last/2\n", "/repo/flatfs/shard/v1/prefix/5"] {
            assert!(is_sharding(text), "{text}");
        }
        for text in ["", "/repo/flatfs/shard/v2/next-to-last/2", "/repo/flatfs/shard/v1/next-to-last/x", "/repo/flatfs/shard/v1/other/2"] {
            assert!(!is_sharding(text), "{text}");
        }
    }
}
