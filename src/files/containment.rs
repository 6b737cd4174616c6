//! Whether a path lies inside a folder, by its text alone.

use std::path::{Component, Path, PathBuf};

/// Resolves `.` and `..` by text; `None` when `..` climbs above the start or the path is relative.
#[must_use]
pub fn normalise(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut parts = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                if !parts.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    Some(parts)
}

/// True when `path`, normalised, is `root` or lies below it. Prefix siblings (`/a/bc` of `/a/b`) don't.
#[must_use]
pub fn contains(root: &Path, path: &Path) -> bool {
    match (normalise(root), normalise(path)) {
        (Some(root), Some(path)) => path.starts_with(root),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_and_climbs_are_outside() {
        let root = Path::new("/run/work");
        for inside in ["/run/work", "/run/work/a", "/run/work/../work/a/./b"] {
            assert!(contains(root, Path::new(inside)), "{inside}");
        }
        for outside in ["/run/work2/a", "/run/work/../x", "/run", "work/a", "/run/work/../../../.."] {
            assert!(!contains(root, Path::new(outside)), "{outside}");
        }
    }
}
