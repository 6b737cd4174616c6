//! Mount tables (`/proc/PID/mountinfo`) as far as finding cgroup hierarchies needs them.

use std::path::PathBuf;

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The folder of the file system that is mounted (`/` for the whole).
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type, e.g. `cgroup2`.
    pub kind: String,
    /// Options of the file system, e.g. the controllers of a version 1 hierarchy.
    pub options: Vec<String>,
}

/// Reads a whole table; lines that don't have the documented shape are left out.
#[must_use]
pub fn parse(table: &str) -> Vec<Mount> {
    table.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let kind = right.next()?.to_owned();
    let options = right.nth(1).unwrap_or("").split(',').map(str::to_owned).collect();
    Some(Mount { root: unescape(root), point: unescape(point), kind, options })
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\' && tail.len() >= 3)
            .then(|| {
                std::str::from_utf8(&tail[..3]).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
            })
            .flatten();
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

/// The cgroup v2 mount to use: one that shows the whole hierarchy before one that shows a part of it.
#[must_use]
pub fn cgroup2(mounts: &[Mount]) -> Option<&Mount> {
    let mut candidates: Vec<&Mount> = mounts.iter().filter(|mount| mount.kind == "cgroup2").collect();
    candidates.sort_by_key(|mount| mount.root.components().count());
    candidates.first().copied()
}

/// The version 1 hierarchy that holds `controller`.
#[must_use]
pub fn cgroup1<'a>(mounts: &'a [Mount], controller: &str) -> Option<&'a Mount> {
    mounts
        .iter()
        .find(|mount| mount.kind == "cgroup" && mount.options.iter().any(|option| option == controller))
}

/// Controllers that limit a session, and where version 1 hierarchies may hold them.
pub const CONTROLLERS: [&str; 3] = ["pids", "memory", "cpu"];

/// Where groups of sessions may be: the version 2 hierarchy, and version 1 hierarchies (`true`) of [`CONTROLLERS`].
#[must_use]
pub fn hierarchies(mounts: &[Mount]) -> Vec<(PathBuf, bool)> {
    let second = cgroup2(mounts).map(|mount| (mount.point.clone(), false));
    let first =
        CONTROLLERS.iter().filter_map(|name| cgroup1(mounts, name)).map(|mount| (mount.point.clone(), true));
    let mut all: Vec<(PathBuf, bool)> = Vec::new();
    for found in second.into_iter().chain(first) {
        if !all.contains(&found) {
            all.push(found);
        }
    }
    all
}

/// The path after the second colon of the line of `/proc/PID/cgroup` that `hierarchy` names:
/// the empty string for version 2, a controller for version 1.
#[must_use]
pub fn membership(table: &str, hierarchy: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == hierarchy).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
22 27 0:21 / /proc rw - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_2_is_found_wherever_it_is_mounted() {
        for (table, expected) in [
            ("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"),
            (HYBRID, "/sys/fs/cgroup/unified"),
            ("50 1 0:40 / /mnt/my\\040groups rw - cgroup2 none rw\n", "/mnt/my groups"),
            (
                "50 1 0:40 /docker/a /part rw - cgroup2 none rw\n51 1 0:40 / /whole rw - cgroup2 none rw\n",
                "/whole",
            ),
        ] {
            let mounts = parse(table);
            assert_eq!(cgroup2(&mounts).map(|mount| mount.point.clone()), Some(PathBuf::from(expected)));
        }
        assert_eq!(cgroup2(&parse("22 27 0:21 / /proc rw - proc proc rw\nnonsense\n")), None);
    }

    #[test]
    fn version_1_controllers_are_found_by_their_option() {
        let mounts = parse(HYBRID);
        assert_eq!(
            cgroup1(&mounts, "pids").map(|mount| mount.point.clone()),
            Some("/sys/fs/cgroup/pids".into())
        );
        assert_eq!(cgroup1(&mounts, "memory"), None);
    }

    #[test]
    fn membership_is_read_per_hierarchy() {
        let table = "9:name=systemd:/\n8:cpu,pids:/a:b\n0::/system.slice/x.service\n";
        assert_eq!(membership(table, ""), Some("/system.slice/x.service".into()));
        assert_eq!(membership(table, "pids"), Some("/a:b".into()));
        assert_eq!(membership(table, "memory"), None);
    }
}
