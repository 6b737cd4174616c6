//! The private view of the file system.
//!
//! Sources are cloned first, while everything can still be reached; then come the private folders, the attached ones,
//! the covers, and the read-only remount last.

use super::super::launch::{Bind, FileView};
use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;

/// Builds the view in the mount namespace that the caller just entered. Gives back what stays writable.
pub(super) fn build(view: &FileView, passed: &[OwnedFd]) -> Result<Vec<PathBuf>> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| failed("making mounts private", "/", e))?;
    let clones = view.binds.iter().map(clone_of).collect::<Result<Vec<_>>>()?;

    // Processes of others are nobody's business; hidepid needs a mount of its own.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, Some("hidepid=2"))
        .map_err(|e| failed("a private /proc", "/proc", e))?;
    if !view.keep.is_empty() {
        cover_all_but(&view.keep)?;
    }

    let mut writable: Vec<PathBuf> = Vec::new();
    for folder in &view.private {
        // A link (/var/tmp on some hosts) is covered where it leads to; what an earlier cover took away is made anew.
        let path = match folder.path.canonicalize() {
            Ok(path) => path,
            Err(_) if writable.iter().any(|covered| folder.path.starts_with(covered)) => {
                make_target(&folder.path, true)?;
                folder.path.clone()
            }
            Err(_) => continue,
        };
        tmpfs(&path, folder.bytes, folder.mode)?;
        writable.push(path);
    }
    for (mount, target) in &view.attach {
        make_target(target, true)?;
        attach(passed[*mount].as_raw_fd(), target)?;
        writable.push(target.clone());
    }
    for (bind, clone) in view.binds.iter().zip(&clones) {
        // By its descriptor: the path may be covered by now.
        let kind = nix::sys::stat::fstat(clone).map_err(|error| failed("reading", &bind.source, error))?;
        make_target(&bind.target, kind.st_mode & libc::S_IFMT == libc::S_IFDIR)?;
        attach(clone.as_raw_fd(), &bind.target)?;
    }
    for (at, to) in &view.links {
        std::os::unix::fs::symlink(to, at).map_err(|error| Error::io("cannot make a link", at, error))?;
    }
    if let Some(folder) = &view.terminals {
        make_target(folder, true)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(Some("devpts"), folder, Some("devpts"), flags, Some("newinstance,ptmxmode=0666,mode=0620"))
            .map_err(|e| failed("private terminals", folder, e))?;
    }
    for path in &view.hide {
        hide(path)?;
    }
    if let Some(line) = &view.passwd_line {
        add_user(line)?;
    }
    if view.read_only {
        set_attributes(libc::AT_FDCWD, c"/", ATTR_RDONLY, 0, true)
            .map_err(|e| failed("a read-only file system", "/", e))?;
        for path in &writable {
            let text = c_path(path)?;
            set_attributes(libc::AT_FDCWD, &text, 0, ATTR_RDONLY, false)
                .map_err(|error| failed("making it writable", path, error))?;
        }
    }
    Ok(writable)
}

/// Covers every folder at the top that is none of these. Links lead to what is covered or kept itself.
fn cover_all_but(keep: &[PathBuf]) -> Result<()> {
    let top = std::fs::read_dir("/").map_err(|error| Error::io("cannot list", Path::new("/"), error))?;
    for entry in top.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !keep.contains(&path) {
            tmpfs(&path, 4096, 0)?;
        }
    }
    Ok(())
}

/// Makes the measured user known by name, to programs that ask who they are.
fn add_user(line: &str) -> Result<()> {
    let (table, own) = (Path::new("/etc/passwd"), Path::new("/run/assay-gates/passwd"));
    // A host without one has nobody's name.
    let Ok(mut text) = std::fs::read_to_string(table) else { return Ok(()) };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    std::fs::write(own, text)
        .and_then(|()| std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o644)))
        .map_err(|error| Error::io("cannot write", own, error))?;
    let none = None::<&str>;
    mount(Some(own), table, none, MsFlags::MS_BIND, none).map_err(|e| failed("users", table, e))
}

fn clone_of(bind: &Bind) -> Result<OwnedFd> {
    // Looked up once, with the rights that it is looked up with: what is cloned is what was found.
    let found = bind.rights.act(|| {
        openat(AT_FDCWD, &bind.source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|error| failed("looking up", &bind.source, error))
    })?;
    let flags =
        OPEN_TREE_CLONE | (libc::O_CLOEXEC | libc::AT_RECURSIVE | libc::AT_EMPTY_PATH) as libc::c_uint;
    // SAFETY: open_tree reads a C string and gives back a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, found.as_raw_fd(), c"".as_ptr(), flags) };
    if fd < 0 {
        return Err(failed("cloning", &bind.source, Errno::last()));
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let clone = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    if bind.read_only {
        let attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV;
        set_attributes(clone.as_raw_fd(), c"", attributes, 0, true)
            .map_err(|e| failed("read-only", &bind.source, e))?;
    }
    Ok(clone)
}

fn tmpfs(path: &Path, bytes: u64, mode: u32) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // One inode per 4 KiB bounds what a program that makes empty files can take.
    let options = format!("size={bytes},nr_inodes={},mode={mode:o}", (bytes / 4096).max(64));
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|e| failed("a private tmpfs", path, e))
}

/// Makes the place to mount on, unless it is there. Only ever inside a private tmpfs: anything else is the host's.
fn make_target(target: &Path, folder: bool) -> Result<()> {
    if target.symlink_metadata().is_ok() {
        return Ok(());
    }
    let at = |error| Error::io("cannot make a place to mount on", target, error);
    let parent = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(at)?;
    if folder {
        std::fs::create_dir(target).map_err(at)
    } else {
        std::fs::File::create(target).map(drop).map_err(at)
    }
}

fn attach(fd: RawFd, target: &Path) -> Result<()> {
    let path = c_path(target)?;
    // SAFETY: both strings are C strings that live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            fd,
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result < 0 { Err(failed("attaching", target, Errno::last())) } else { Ok(()) }
}

/// Covers a folder by an empty one that can't be entered, a file by an empty one that can't be read.
fn hide(path: &Path) -> Result<()> {
    let Ok(path) = path.canonicalize() else { return Ok(()) };
    if path.is_dir() {
        return tmpfs(&path, 4096, 0);
    }
    let cover = Path::new("/run/assay-gates/hidden");
    if !cover.exists() {
        std::fs::write(cover, "").map_err(|error| Error::io("cannot make a cover", cover, error))?;
        std::fs::set_permissions(cover, std::fs::Permissions::from_mode(0o000))
            .map_err(|error| Error::io("cannot make a cover", cover, error))?;
    }
    mount(Some(cover), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| failed("covering", &path, e))
}

fn set_attributes(
    fd: RawFd,
    path: &std::ffi::CStr,
    set: u64,
    clear: u64,
    recursive: bool,
) -> Result<(), Errno> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the attributes live through the call and are as large as they are said to be.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path.as_ptr(),
            flags as libc::c_uint,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result < 0 { Err(Errno::last()) } else { Ok(()) }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::new(Code::Usage, "a path holds a NUL byte"))
}

fn failed(step: &str, path: impl AsRef<Path>, error: Errno) -> Error {
    Error::new(Code::SandboxFailed, format!("cannot build the private view ({step}): {error}"))
        .at(path.as_ref().display())
        .because(error)
}
