//! Files of inputs: those kept with the sources, and those that a failure leaves.

use std::path::{Path, PathBuf};

fn corpus_dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The kept inputs of a target, in the order of their names; a target may have none.
pub fn corpus_of(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus_dir(target)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))).collect()
}

/// Writes an input into the corpus; its name is its content's, so that the same input is one file.
pub fn keep(target: &str, input: &[u8]) -> std::io::Result<()> {
    let dir = corpus_dir(target);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(name_of(input)), input)
}

/// Writes the input of a failure beside the built tests.
pub(crate) fn save_failure(target: &str, input: &[u8]) -> Option<PathBuf> {
    write_beside(target, &name_of(input), input)
}

/// Writes the input that is tried next.
pub(crate) fn trace(target: &str, input: &[u8]) {
    write_beside(target, "last-tried", input);
}

fn write_beside(target: &str, name: &str, input: &[u8]) -> Option<PathBuf> {
    let dir = std::env::current_exe().ok()?.parent()?.parent()?.join("fuzz-failures").join(target);
    std::fs::create_dir_all(&dir).ok()?;
    let file = dir.join(name);
    std::fs::write(&file, input).ok()?;
    Some(file)
}

/// FNV-1a: short, and the same on every machine.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn name_of(input: &[u8]) -> String {
    format!("{:016x}", hash(input))
}

/// Hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hexadecimal digits, as a failure prints them.
pub fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
