//! A folder that only the measured tree and the driver see: a tmpfs of bounded size.
//!
//! It is made detached; the launcher attaches it inside the private mount namespace, the driver reaches it
//! through the descriptor that it keeps. A program that fills it fills nothing of the host's.

use crate::error::{Code, Error, Result};
use crate::host::rights::Rights;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const MOUNT_ATTR_NOSUID: u32 = 2;
const MOUNT_ATTR_NODEV: u32 = 4;

/// A detached tmpfs.
#[derive(Debug)]
pub struct Folder {
    mount: OwnedFd,
}

impl Folder {
    /// A tmpfs of at most `bytes` and `inodes`, owned by `uid`:`gid`, mode 0755.
    ///
    /// # Errors
    /// `SandboxFailed`, naming the step.
    pub fn new(bytes: u64, inodes: u64, uid: u32, gid: u32) -> Result<Self> {
        let failed = |step: &str, error: std::io::Error| {
            Error::new(Code::SandboxFailed, format!("cannot make a private tmpfs ({step}): {error}"))
                .because(error)
        };
        // SAFETY: fsopen reads a C string and gives back a new descriptor or -1.
        let context = unsafe { owned(nix::libc::syscall(nix::libc::SYS_fsopen, c"tmpfs".as_ptr(), 1)) }
            .map_err(|error| failed("fsopen", error))?;
        for (key, value) in [
            (c"size", bytes.to_string()),
            (c"nr_inodes", inodes.to_string()),
            (c"mode", "0755".to_owned()),
            (c"uid", uid.to_string()),
            (c"gid", gid.to_string()),
        ] {
            let value = CString::new(value).unwrap_or_default();
            // SAFETY: both strings live through the call; the descriptor is the context that was just made.
            let result = unsafe {
                nix::libc::syscall(
                    nix::libc::SYS_fsconfig,
                    context.as_raw_fd(),
                    FSCONFIG_SET_STRING,
                    key.as_ptr(),
                    value.as_ptr(),
                    0,
                )
            };
            check(result).map_err(|error| failed("fsconfig", error))?;
        }
        let none = std::ptr::null::<u8>();
        // SAFETY: FSCONFIG_CMD_CREATE takes no key and no value.
        check(unsafe {
            nix::libc::syscall(
                nix::libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_CMD_CREATE,
                none,
                none,
                0,
            )
        })
        .map_err(|error| failed("fsconfig", error))?;
        // SAFETY: fsmount gives back a new descriptor or -1; flag 1 is FSMOUNT_CLOEXEC.
        let mount = unsafe {
            owned(nix::libc::syscall(
                nix::libc::SYS_fsmount,
                context.as_raw_fd(),
                1,
                MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
            ))
        }
        .map_err(|error| failed("fsmount", error))?;
        Ok(Self { mount })
    }

    /// Its mount, for the launcher to attach.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// A path by which this process reaches it; what lies below may be a trap laid by the measured program.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd()))
    }

    /// Nothing more fits in: no byte or no file.
    #[must_use]
    pub fn is_full(&self) -> bool {
        nix::sys::statvfs::fstatvfs(&self.mount)
            .is_ok_and(|found| found.blocks_available() == 0 || found.files_available() == 0)
    }

    /// Writes a file that belongs to the measured user. Only before the measured program runs.
    ///
    /// # Errors
    /// `Io`, naming the file.
    pub fn seed(&self, name: &Path, bytes: &[u8], uid: u32, gid: u32) -> Result<()> {
        // A seed that is larger than the work folder is the definition's fault, not the disk's.
        let failed = |error: std::io::Error| {
            Error::new(Code::Io, format!("cannot seed the work folder: {error}"))
                .at(name.display())
                .because(error)
        };
        if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let mut made = self.path();
            for part in parent.components() {
                made.push(part);
                if !made.exists() {
                    std::fs::create_dir(&made).map_err(failed)?;
                    std::os::unix::fs::chown(&made, Some(uid), Some(gid)).map_err(failed)?;
                }
            }
        }
        let how = how(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL).mode(Mode::from_bits_truncate(0o644));
        let mut file = File::from(openat2(&self.mount, name, how).map_err(|error| failed(error.into()))?);
        file.write_all(bytes).map_err(failed)?;
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed)
    }

    /// Opens a regular file that the measured program may have written. No symlink is followed, no device or pipe
    /// opened; `None` when there is nothing of that name.
    ///
    /// # Errors
    /// `Io`, naming the file, when it is not a regular file or can't be opened.
    pub fn open(&self, name: &Path) -> Result<Option<File>> {
        open_untrusted(self.fd(), name)
    }

    /// As [`Folder::open`], read whole; at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Folder::open`], and when the file is larger than `limit`.
    pub fn read(&self, name: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("cannot read", name, error))?;
        if bytes.len() as u64 > limit {
            let grown = std::io::Error::other(format!("larger than {limit} bytes"));
            return Err(Error::io("refused", name, grown));
        }
        Ok(Some(bytes))
    }
}

/// Opens a regular file below `folder` that an untrusted program may have laid there.
///
/// # Errors
/// `Io`, naming the file.
pub fn open_untrusted(folder: BorrowedFd<'_>, name: &Path) -> Result<Option<File>> {
    let file = match openat2(folder, name, how(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)) {
        Ok(file) => File::from(file),
        Err(nix::Error::ENOENT) => return Ok(None),
        Err(nix::Error::ELOOP) => {
            return Err(Error::io(
                "refused",
                name,
                std::io::Error::other("a symbolic link, expected a file"),
            ));
        }
        Err(error) => return Err(Error::io("cannot open", name, error.into())),
    };
    let kind = file.metadata().map_err(|error| Error::io("cannot read", name, error))?;
    if !kind.is_file() {
        return Err(Error::io("refused", name, std::io::Error::other("not a regular file")));
    }
    Ok(Some(file))
}

/// Puts a file with `bytes` in the place of whatever an untrusted program laid at `name` below `folder`. It belongs to
/// whoever `rights` are of; no link is followed, and a folder in its place is an error.
///
/// # Errors
/// `Io`, naming the file.
pub fn put_over_untrusted(folder: BorrowedFd<'_>, name: &Path, bytes: &[u8], rights: &Rights) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("cannot write", name, error);
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let draft = PathBuf::from(format!(".assay-gates-{}", hex::encode(random)));
    let how = how(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL).mode(Mode::from_bits_truncate(0o644));
    let made = rights.act(|| openat2(folder, &draft, how).map_err(|error| failed(error.into())))?;
    // The name itself is root's to give: in a sticky folder the file that stands there is the program's.
    let placed = File::from(made)
        .write_all(bytes)
        .and_then(|()| nix::fcntl::renameat(folder, &draft, folder, name).map_err(Into::into));
    if placed.is_err() {
        let _it_is_only_a_draft =
            nix::unistd::unlinkat(folder, &draft, nix::unistd::UnlinkatFlags::NoRemoveDir);
    }
    placed.map_err(failed)
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    )
}

fn check(result: nix::libc::c_long) -> std::io::Result<nix::libc::c_long> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// `result` must be what a system call gave back that makes a new descriptor.
unsafe fn owned(result: nix::libc::c_long) -> std::io::Result<OwnedFd> {
    let fd = i32::try_from(check(result)?).map_err(std::io::Error::other)?;
    // SAFETY: the caller promises that nobody else owns this new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
