//! Whether a path that a caller names lies inside a folder, on disk and not only by its text.

use std::path::{Component, Path, PathBuf};

/// Longest path that is looked at, in bytes; the kernel takes none that is longer.
const LONGEST: usize = 4095;

/// Absolute, and made of plain names only.
pub(super) fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| matches!(part, Component::ParentDir))
}

/// Checks that `text` names something inside one of `roots` after all symbolic links are followed.
///
/// A server may read more into a string than a path: a home folder (`~`), surrounding blanks or quotes that it
/// strips, a folder of its own for relative paths. Whatever another reader could take for another path is refused.
/// A link that changes after this check is not seen here; the kernel's record shows what was opened.
///
/// Gives back why it is refused, as a clause.
pub(super) fn inside(text: &str, roots: &[PathBuf]) -> Result<(), String> {
    let path = Path::new(text);
    if text.len() > LONGEST {
        return Err(format!("is {} bytes long, more than the {LONGEST} that a path can have", text.len()));
    }
    if !path.is_absolute() {
        return Err("is not absolute, so the server decides what it means".to_owned());
    }
    let doubtful = |c: char| c.is_control() || matches!(c, '\\' | '"' | '\'' | '\u{2028}' | '\u{2029}');
    if text.contains(doubtful) || text.trim() != text {
        return Err("has blanks around it, quotes, backslashes or control characters".to_owned());
    }
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err("has a `..`".to_owned());
    }
    // `/proc/self` and `/dev/fd` are other files for the server than for this process.
    if path.starts_with("/proc") || path.starts_with("/dev") {
        return Err("lies in /proc or /dev, which differ between processes".to_owned());
    }
    let real = follow(path)?;
    for root in roots {
        // A root that isn't there has nothing inside it.
        if std::fs::canonicalize(root).is_ok_and(|root| real.starts_with(root)) {
            return Ok(());
        }
    }
    let folders: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
    Err(format!("lies outside {}", folders.join(", ")))
}

/// The real path of `path`, of which the last parts need not exist yet.
fn follow(path: &Path) -> Result<PathBuf, String> {
    for known in path.ancestors() {
        match std::fs::canonicalize(known) {
            Ok(real) => {
                let rest = path.strip_prefix(known).unwrap_or(Path::new(""));
                return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if known.symlink_metadata().is_ok() {
                    return Err("runs through a symbolic link that leads nowhere".to_owned());
                }
            }
            Err(error) => return Err(format!("can't be resolved: {error}")),
        }
    }
    Err("can't be resolved".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_really_lies_inside_is_inside() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let root = base.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir(base.join("root2")).unwrap();
        std::fs::write(root.join("a"), "").unwrap();
        std::fs::write(base.join("root2/secret"), "").unwrap();
        symlink(base.join("root2"), root.join("out")).unwrap();
        symlink(root.join("sub"), root.join("in")).unwrap();
        symlink(base.join("nowhere"), root.join("dangling")).unwrap();
        symlink(root.join("loop"), root.join("loop")).unwrap();
        symlink(&root, base.join("alias")).unwrap();
        let base = base.to_str().unwrap();
        let roots = [root.clone()];
        for good in ["root", "root/", "root/a", "root/in/new/file", "alias/a", "root/./a", "root//a"] {
            assert_eq!(inside(&format!("{base}/{good}"), &roots), Ok(()), "{good}");
        }
        for bad in [
            "root2/secret",
            "root/../root2/secret",
            "root/sub/../a",
            "root/out/secret",
            "root/out/new",
            "root/dangling",
            "root/dangling/x",
            "root/loop",
            "root/a/x",
            "root/a ",
            "root/'a'",
            "root/a\\b",
            "root/a\n",
            "",
        ] {
            assert!(inside(&format!("{base}/{bad}"), &roots).is_err(), "{bad}");
        }
        for bad in
            ["/proc/self/cwd/a", "/dev/fd/0", "", "a", "~/a", "./a", "file:///a", " /a", "\"/a\"", "\0"]
        {
            assert!(inside(bad, &[PathBuf::from("/")]).is_err(), "{bad}");
        }
        assert!(inside(&format!("/{}", "a".repeat(5000)), &[PathBuf::from("/")]).is_err());
        assert!(inside("/etc/hostname", &[PathBuf::from("/not/there")]).is_err());
    }

    #[test]
    fn a_root_that_is_a_link_means_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        symlink(base.join("real"), base.join("link")).unwrap();
        let text = base.join("link/new");
        assert_eq!(inside(text.to_str().unwrap(), &[base.join("link")]), Ok(()));
        assert_eq!(inside(text.to_str().unwrap(), &[base.join("real")]), Ok(()));
    }
}
