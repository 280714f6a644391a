//! The keys of this peer: one file each, readable by its owner alone, as in Kubo's keystore. Nothing is kept in memory, so that the command
//! line may work on the files while the peer runs.

use net::keys::{KEY_BYTES_MAX, KeyError, NameKey};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use types::PeerId;
use wire::ipns::{key_file, key_of_file, name_from_text};

/// The name of the node's own key.
pub const SELF: &str = "self";
/// The longest name: its file's name must fit what file systems take.
const NAME_BYTES_MAX: usize = 128;
/// Keys listed; nobody has so many.
const KEYS_MOST: usize = 10_000;

/// Why a key is not there, or not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The name cannot be one.
    #[error("{0:?} cannot name a key: use 1 to {NAME_BYTES_MAX} letters without a slash")]
    BadName(String),
    /// `self` is the node's identity.
    #[error("\"self\" is the identity of this peer's node: it cannot be {0}")]
    IsSelf(&'static str),
    /// No such key.
    #[error("this peer has no key {0:?}: `pinfold key list` shows them, `pinfold key gen` makes one")]
    Unknown(String),
    /// The name is taken.
    #[error("there is a key {0:?} already: choose another name, or rename or remove that one first")]
    Exists(String),
    /// The file is no key, or one that does nothing here.
    #[error("key {name:?}: {source}")]
    Key {
        /// Its name.
        name: String,
        /// Why.
        source: KeyError,
    },
    /// The disk.
    #[error("{what} {path}: {source}")]
    Disk {
        /// What was attempted.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// A key in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// What people call it.
    pub key: String,
    /// The IPNS name that belongs to it.
    pub name: PeerId,
    /// `ed25519`, `rsa`, …
    pub kind: &'static str,
}

/// The folder of the keys.
#[derive(Clone)]
pub struct Keystore {
    folder: PathBuf,
    own: Option<[u8; 32]>,
}

impl Keystore {
    /// In this folder, made when the first key is. `own`: the seed of the node's identity, the key `self`.
    pub fn new(folder: PathBuf, own: Option<[u8; 32]>) -> Keystore {
        Keystore { folder, own }
    }

    /// All keys by name, `self` first.
    pub fn list(&self) -> Result<Vec<KeyInfo>, KeystoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(self.disk("reading", &self.folder, source)),
        };
        let mut names = Vec::new();
        for entry in entries.into_iter().flatten().take(KEYS_MOST) {
            let entry = entry.map_err(|source| self.disk("reading", &self.folder, source))?;
            names.extend(entry.file_name().to_str().and_then(key_of_file));
        }
        names.sort();
        let own = self.own.is_some().then(|| SELF.to_owned());
        let mut keys = Vec::new();
        for key in own.into_iter().chain(names) {
            match self.get(&key) {
                Ok(found) => keys.push(KeyInfo { key, name: found.name(), kind: found.kind() }),
                // One damaged file must not keep the others from being used.
                Err(error @ KeystoreError::Key { .. }) => tracing::warn!(%error, "a key is left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// The key that people call so, or that belongs to this IPNS name.
    pub fn find(&self, key_or_name: &str) -> Result<NameKey, KeystoreError> {
        match self.get(key_or_name) {
            Err(KeystoreError::Unknown(_)) => {}
            found => return found,
        }
        let unknown = || KeystoreError::Unknown(key_or_name.to_owned());
        let name = name_from_text(key_or_name).map_err(|_| unknown())?;
        self.of(&name)?.ok_or_else(unknown)
    }

    /// The key of an IPNS name.
    pub fn of(&self, name: &PeerId) -> Result<Option<NameKey>, KeystoreError> {
        let keys = self.list()?;
        keys.iter().find(|info| info.name == *name).map(|info| self.get(&info.key)).transpose()
    }

    fn get(&self, key: &str) -> Result<NameKey, KeystoreError> {
        let fault = |source| KeystoreError::Key { name: key.to_owned(), source };
        match (key, self.own) {
            (SELF, Some(seed)) => NameKey::from_seed(seed).map_err(fault),
            _ => NameKey::from_protobuf(&self.export(key)?).map_err(fault),
        }
    }

    /// Makes an ed25519 key.
    pub fn generate(&self, key: &str) -> Result<KeyInfo, KeystoreError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| KeystoreError::Random(error.to_string()))?;
        self.import_seed(key, seed)
    }

    /// Takes the ed25519 key of a seed.
    pub fn import_seed(&self, key: &str, seed: [u8; 32]) -> Result<KeyInfo, KeystoreError> {
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        // libp2p's protobuf of a private key: type 1, then seed and public half.
        self.import(key, &[&[0x08, 0x01, 0x12, 0x40][..], &seed, &public].concat())
    }

    /// Takes a key in libp2p's form.
    pub fn import(&self, key: &str, bytes: &[u8]) -> Result<KeyInfo, KeystoreError> {
        let path = self.path(key, "replaced")?;
        let read = NameKey::from_protobuf(bytes).map_err(|source| KeystoreError::Key { name: key.to_owned(), source })?;
        self.write_new(key, &path, bytes)?;
        Ok(KeyInfo { key: key.to_owned(), name: read.name(), kind: read.kind() })
    }

    /// A key in libp2p's form, secret half included.
    pub fn export(&self, key: &str) -> Result<Vec<u8>, KeystoreError> {
        let path = self.path(key, "exported")?;
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > KEY_BYTES_MAX as u64 => {
                Err(KeystoreError::Key { name: key.to_owned(), source: KeyError::TooLong(metadata.len() as usize) })
            }
            Ok(_) => fs::read(&path).map_err(|source| self.disk("reading", &path, source)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(KeystoreError::Unknown(key.to_owned())),
            Err(source) => Err(self.disk("reading", &path, source)),
        }
    }

    /// Calls a key otherwise; a key of the new name is never replaced.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), KeystoreError> {
        let (old, new) = (self.path(from, "renamed")?, self.path(to, "replaced")?);
        // A second name for the same file first: nothing is lost at any moment, and an existing key is not replaced.
        match fs::hard_link(&old, &new) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(KeystoreError::Unknown(from.to_owned())),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(KeystoreError::Exists(to.to_owned())),
            Err(source) => return Err(self.disk("writing", &new, source)),
        }
        self.sync_folder()?;
        fs::remove_file(&old).map_err(|source| self.disk("removing", &old, source))?;
        self.sync_folder()
    }

    /// Removes a key for good.
    pub fn remove(&self, key: &str) -> Result<(), KeystoreError> {
        let path = self.path(key, "removed")?;
        match fs::remove_file(&path) {
            Ok(()) => self.sync_folder(),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(KeystoreError::Unknown(key.to_owned())),
            Err(source) => Err(self.disk("removing", &path, source)),
        }
    }

    fn path(&self, key: &str, cannot: &'static str) -> Result<PathBuf, KeystoreError> {
        if key == SELF {
            return Err(KeystoreError::IsSelf(cannot));
        }
        if key.is_empty() || key.len() > NAME_BYTES_MAX || key.contains('/') || key.chars().any(char::is_control) {
            return Err(KeystoreError::BadName(key.chars().take(NAME_BYTES_MAX).collect()));
        }
        Ok(self.folder.join(key_file(key)))
    }

    /// Durably, readable by the owner alone from its first moment, and never over another key.
    fn write_new(&self, key: &str, path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
        fs::create_dir_all(&self.folder).map_err(|source| self.disk("making", &self.folder, source))?;
        /// Two that make the same key at once must not write into one file.
        static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{attempt}.new", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::hard_link(&temporary, path)
        };
        let written = write();
        fs::remove_file(&temporary).ok();
        match written {
            Ok(()) => self.sync_folder(),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(KeystoreError::Exists(key.to_owned())),
            Err(source) => Err(self.disk("writing", path, source)),
        }
    }

    /// The folder itself, and the one around it in case it was just made.
    fn sync_folder(&self) -> Result<(), KeystoreError> {
        let sync = |folder: &Path| File::open(folder).and_then(|folder| folder.sync_all());
        let synced = sync(&self.folder).and_then(|()| self.folder.parent().map_or(Ok(()), sync));
        synced.map_err(|source| self.disk("syncing", &self.folder, source))
    }

    fn disk(&self, what: &'static str, path: &Path, source: std::io::Error) -> KeystoreError {
        KeystoreError::Disk { what, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_listed_renamed_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keystore::new(folder.path().join("keys"), Some([7; 32]));
        assert_eq!(keys.list().expect("listed").len(), 1, "self, with no folder yet");
        let made = keys.generate("site").expect("made");
        assert!(matches!(keys.generate("site"), Err(KeystoreError::Exists(_))));
        assert_eq!(keys.find("site").expect("there").name(), made.name);
        assert_eq!(keys.find(&wire::ipns::name_text(&made.name)).expect("by its name").name(), made.name);
        let file = folder.path().join("keys").join(key_file("site"));
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);

        keys.generate("other").expect("made");
        assert!(matches!(keys.rename("site", "other"), Err(KeystoreError::Exists(_))));
        keys.rename("site", "blog").expect("renamed");
        assert_eq!(keys.find("blog").expect("there").name(), made.name);
        assert!(matches!(keys.find("site"), Err(KeystoreError::Unknown(_))));
        let listed: Vec<String> = keys.list().expect("listed").into_iter().map(|info| info.key).collect();
        assert_eq!(listed, ["self", "blog", "other"]);

        let bytes = keys.export("blog").expect("exported");
        keys.remove("blog").expect("removed");
        assert!(matches!(keys.remove("blog"), Err(KeystoreError::Unknown(_))));
        assert_eq!(keys.import("again", &bytes).expect("imported").name, made.name);
    }

    #[test]
    fn self_and_bad_names_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keystore::new(folder.path().to_owned(), Some([7; 32]));
        assert!(matches!(keys.generate(SELF), Err(KeystoreError::IsSelf(_))));
        assert!(matches!(keys.export(SELF), Err(KeystoreError::IsSelf("exported"))));
        assert!(matches!(keys.remove(SELF), Err(KeystoreError::IsSelf(_))));
        for name in ["", "a/b", "a\nb", &"x".repeat(200)] {
            assert!(matches!(keys.generate(name), Err(KeystoreError::BadName(_))), "{name:?}");
        }
        assert!(matches!(keys.import("junk", b"junk"), Err(KeystoreError::Key { .. })));
        assert_eq!(keys.list().expect("listed").len(), 1, "nothing was written");
    }
}
