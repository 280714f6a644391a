//! A file system whose power can be cut: it keeps apart what was synced from what was only written, and forgets the latter.
//!
//! [`disk`] is the model, without any system call: files and directories, each as they are now and as they would be found after a cut.
//! [`mount`] shows it to processes through FUSE (root and `/dev/fuse` needed). The judge itself is `tests/power_cut.rs`: it runs the
//! store on such a disk, cuts the power at seeded moments, and asks the survivor for everything that was acknowledged.
//!
//! What a cut may do, within POSIX:
//! - a written page is there or not, each for itself, unless the file was synced after;
//! - a file's new size is there or not, with holes where pages are missing;
//! - creations, renames and removals of a directory are there up to some moment, unless the directory was synced after. Syncing a file
//!   does not make its name durable.
//!
//! Not modelled: pages that are half written (4 KiB are atomic), disks that lie about having synced.

pub mod disk;
pub mod mount;

pub use disk::{Disk, DiskError, Kind};
pub use mount::{Mounted, why_not};
