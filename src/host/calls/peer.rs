//! Is the process at the other end really our proxy?
//!
//! The measured program has the proxy's uid, so it may try to speak in its place: connect and then execute our
//! binary, run our binary with a library of its own, under a debugger, or in namespaces where it is root. Each of
//! these shows in what the kernel says of the process, which is read before the challenge and again after the
//! answer; an image that was replaced in between has other addresses. A binary that is linked statically would make
//! the loader's checks needless; with a dynamic one, a library that hides all its traces before the proxy says hello
//! is the limit of what is claimed.

use crate::error::{Error, Result};
use nix::sys::socket::{getsockopt, sockopt};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders whose libraries a proxy may be linked to; all of them are root's.
const LIBRARIES: [&str; 4] = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/"];

/// Device and inode of a file.
type File = (u64, u64);

/// What a proxy must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    binary: File,
}

/// A process that was found to be our proxy, and the image that it was found with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) pid: i32,
    image: Image,
}

/// What changes with every exec and with every process: start time, and where code and stack lie.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image(Vec<String>);

impl Identity {
    /// The identity of our binary.
    pub(super) fn of(binary: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(binary)
            .map_err(|error| Error::io("cannot look at our own binary", binary, error))?;
        Ok(Self { binary: file(&metadata) })
    }

    /// Looks at the process that connected; `members` are the processes of the session's own cgroup.
    ///
    /// # Errors
    /// Why it is not our proxy.
    pub(super) fn verify(&self, connection: &OwnedFd, members: &[i32]) -> Result<Peer, String> {
        let credentials = getsockopt(connection, sockopt::PeerCredentials)
            .map_err(|error| format!("no peer credentials: {error}"))?;
        let pid = credentials.pid();
        // Holds the process id where the kernel has this (Linux 6.5); the image's start time tells reuse elsewhere.
        let held: Option<OwnedFd> = getsockopt(connection, sockopt::PeerPidfd).ok();
        let peer = self.look(pid, members).map_err(|why| format!("process {pid}: {why}"))?;
        match held.map(|held| is_alive(&held)) {
            Some(false) => Err(format!("process {pid} has ended")),
            _ => Ok(peer),
        }
    }

    fn look(&self, pid: i32, members: &[i32]) -> Result<Peer, String> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let unreadable =
            |what: &'static str| move |error: io::Error| format!("{what} can't be read: {error}");
        let text = |name: &'static str| std::fs::read_to_string(folder.join(name)).map_err(unreadable(name));
        let image = Image::parse(&text("stat")?).ok_or("stat has an unknown form")?;
        let executed = std::fs::metadata(folder.join("exe")).map_err(unreadable("exe"))?;
        if file(&executed) != self.binary {
            return Err("runs another program".to_owned());
        }
        if !members.contains(&pid) {
            return Err("is not in the session's own cgroup".to_owned());
        }
        if !text("status")?.lines().any(|line| line.split_whitespace().eq(["TracerPid:", "0"])) {
            return Err("is traced".to_owned());
        }
        // Only the session's init has children in the session's cgroup: one level below ours is its own namespace.
        let depth = |status: &str| {
            Some(status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().count())
        };
        let of = |folder: &Path| std::fs::read_link(folder.join("ns/pid")).map_err(unreadable("ns/pid"));
        let own = std::fs::read_to_string("/proc/self/status").map_err(unreadable("status"))?;
        let inside = depth(&text("status")?) == depth(&own).map(|depth| depth + 1);
        if !inside && of(&folder)? != of(Path::new("/proc/self"))? {
            return Err("is in a namespace of its own (ns/pid)".to_owned());
        }
        let user = |folder: &Path| std::fs::read_link(folder.join("ns/user")).map_err(unreadable("ns/user"));
        if user(&folder)? != user(Path::new("/proc/self"))? {
            return Err("is in a namespace of its own (ns/user)".to_owned());
        }
        let environment = std::fs::read(folder.join("environ")).map_err(unreadable("environ"))?;
        if let Some(name) = environment.split(|byte| *byte == 0).find(|entry| entry.starts_with(b"LD_")) {
            let name = name.split(|byte| *byte == b'=').next().unwrap_or_default();
            return Err(format!("was started with {}", String::from_utf8_lossy(name)));
        }
        for mapping in text("maps")?.lines() {
            self.check_mapping(mapping, &folder)?;
        }
        if Image::parse(&text("stat")?).as_ref() != Some(&image) {
            return Err("executed another image".to_owned());
        }
        Ok(Peer { pid, image })
    }

    /// Code must come from our binary or from the system's libraries.
    fn check_mapping(&self, line: &str, process: &Path) -> Result<(), String> {
        let mut fields = line.splitn(6, ' ');
        let (Some(range), Some(mode)) = (fields.next(), fields.next()) else {
            return Err("maps has an unknown form".to_owned());
        };
        let path = fields.nth(3).unwrap_or_default().trim_start();
        if !mode.contains('x') || matches!(path, "[vdso]" | "[vsyscall]" | "[uprobes]") {
            return Ok(());
        }
        let mapped = std::fs::metadata(process.join("map_files").join(canonical_range(range)));
        let mapped =
            mapped.map_err(|error| format!("has code from {path:?}, which can't be looked at: {error}"))?;
        let library = LIBRARIES.iter().any(|folder| path.starts_with(folder));
        if file(&mapped) == self.binary || (library && mapped.uid() == 0 && mapped.mode() & 0o022 == 0) {
            return Ok(());
        }
        Err(format!("has code from {path:?}"))
    }
}

impl Peer {
    /// Still the same process and the same image.
    pub(super) fn is_unchanged(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        stat.ok().and_then(|text| Image::parse(&text)).as_ref() == Some(&self.image)
    }
}

impl Image {
    /// Fields 22 (start time), 26 to 28 (code, stack) and 45 to 51 (data, heap, arguments, environment) of `stat`.
    fn parse(stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything; what follows its last parenthesis begins with field 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).map(|text| (*text).to_owned());
        [22].into_iter().chain(26..=28).chain(45..=51).map(field).collect::<Option<Vec<_>>>().map(Self)
    }
}

fn file(metadata: &Metadata) -> File {
    (metadata.dev(), metadata.ino())
}

/// `maps` pads addresses with zeros, `map_files` does not.
fn canonical_range(range: &str) -> String {
    let plain = |part: &str| match part.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    range.split('-').map(plain).collect::<Vec<_>>().join("-")
}

/// A pidfd is readable once its process has ended.
fn is_alive(pidfd: &OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut wanted = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut wanted, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn another_exec_of_the_same_program_is_another_image() {
        let mut child = Command::new("sh")
            .args(["-c", "echo one; read x; exec sh -c 'echo two; read x'"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stat = format!("/proc/{}/stat", child.id());
        let image = || Image::parse(&std::fs::read_to_string(&stat).unwrap()).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        let peer = Peer { pid: child.id().try_into().unwrap(), image: image() };
        assert!(peer.is_unchanged());
        input.write_all(b"\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        assert!(!peer.is_unchanged());
        input.write_all(b"\n").unwrap();
        child.wait().unwrap();
        assert!(!peer.is_unchanged());
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let fields: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) b) (c) {}", fields.join(" "));
        let expected = [22, 26, 27, 28, 45, 46, 47, 48, 49, 50, 51].map(|number: u32| number.to_string());
        assert_eq!(Image::parse(&stat).unwrap().0, expected);
        assert_eq!(Image::parse("7 (a) S 1"), None);
    }

    #[test]
    fn ranges_are_written_as_the_kernel_names_its_links() {
        assert_eq!(canonical_range("00400000-00401000"), "400000-401000");
        assert_eq!(canonical_range("7f00-7f10"), "7f00-7f10");
    }
}
