//! Shows a [`Disk`] to processes through FUSE.

use crate::disk::{Attributes, Disk, DiskError, Ino, Kind};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The kernel asks again each time: nothing of a dead disk stays in its caches.
const NO_CACHE: Duration = Duration::ZERO;

/// A mounted disk; unmounted when dropped.
pub struct Mounted {
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
}

/// Says why no disk can be mounted here; none when one can.
pub fn why_not() -> Option<&'static str> {
    let is_root = rustix::process::geteuid().is_root();
    let is_there = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    (!is_root || !is_there).then_some("needs root and /dev/fuse")
}

impl Mounted {
    /// Mounts `disk` on the directory `at`.
    pub fn new(disk: Disk, at: &Path) -> std::io::Result<Mounted> {
        let disk = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Fuse { disk: disk.clone() }, at, &config)?;
        Ok(Mounted { disk, session: Some(session) })
    }

    /// Looks at or changes the disk itself.
    pub fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.disk.lock())
    }

    /// Unmounts; every process must have let go of its files.
    pub fn unmount(mut self) -> std::io::Result<Disk> {
        if let Some(session) = self.session.take() {
            match session.umount_and_join() {
                // How the kernel ends a reader that waits while the mount goes (instead of ENODEV, by which it also may).
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                ended => ended?,
            }
        }
        Ok(self.disk.lock().clone())
    }
}

struct Fuse {
    disk: Arc<Mutex<Disk>>,
}

impl Fuse {
    fn attributes(&self, ino: Ino) -> Result<FileAttr, Errno> {
        Ok(show(ino, self.disk.lock().attributes(ino).map_err(errno)?))
    }

    fn make(&self, parent: INodeNo, name: &OsStr, kind: Kind) -> Result<FileAttr, Errno> {
        let ino = self.disk.lock().create(parent.0, name, kind).map_err(errno)?;
        self.attributes(ino)
    }
}

impl Filesystem for Fuse {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk.lock().lookup(parent.0, name).map_err(errno);
        enter(found.and_then(|ino| self.attributes(ino)), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, _: u64) {
        self.disk.lock().forget(ino.0);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| self.disk.lock().resize(ino.0, size).map_err(errno));
        match resized.and_then(|()| self.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        enter(self.make(parent, name, Kind::Directory), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        end(self.disk.lock().remove(parent.0, name, Kind::File), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        end(self.disk.lock().remove(parent.0, name, Kind::Directory), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        end(self.disk.lock().rename((parent.0, name), (to_parent.0, to_name)), reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, _flags: i32, reply: ReplyCreate) {
        match self.make(parent, name, Kind::File) {
            Ok(attributes) => reply.created(&NO_CACHE, &attributes, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, size: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        match self.disk.lock().read(ino.0, offset, u64::from(size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk.lock().write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A close makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        end(self.disk.lock().sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        end(self.disk.lock().sync(ino.0), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.disk.lock().entries(ino.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        for (at, (name, ino, kind)) in entries.into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(ino), at as u64 + 1, file_type(kind), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const UNIT: u32 = crate::disk::PAGE as u32;
        let (capacity, free) = self.disk.lock().space();
        let (capacity, free) = (capacity / u64::from(UNIT), free / u64::from(UNIT));
        reply.statfs(capacity, free, free, 1 << 20, 1 << 20, UNIT, 255, UNIT);
    }
}

fn enter(made: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match made {
        Ok(attributes) => reply.entry(&NO_CACHE, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn end(done: Result<(), DiskError>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn errno(error: DiskError) -> Errno {
    match error {
        DiskError::Dead => Errno::EIO,
        DiskError::NotFound => Errno::ENOENT,
        DiskError::Exists => Errno::EEXIST,
        DiskError::NotEmpty => Errno::ENOTEMPTY,
        DiskError::WrongKind => Errno::EISDIR,
        DiskError::Full => Errno::ENOSPC,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

fn show(ino: Ino, attributes: Attributes) -> FileAttr {
    const THEN: SystemTime = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: attributes.size,
        blocks: attributes.pages * (crate::disk::PAGE / 512),
        atime: THEN,
        mtime: THEN,
        ctime: THEN,
        crtime: THEN,
        kind: file_type(attributes.kind),
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: crate::disk::PAGE as u32,
        flags: 0,
    }
}
