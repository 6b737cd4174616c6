//! Names of files in a pack: what every reader of it can hold, and reads alike.

use std::collections::BTreeMap;

/// Longest path.
pub const PATH_LIMIT: usize = 1024;

/// A name that a pack can't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The path.
    pub path: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// Whether `path` is one that a pack may hold: relative, `/` between parts, no `.` or `..`, no character that the
/// artifact service or another system refuses.
///
/// # Errors
/// What is wrong with it.
pub fn check(path: &str) -> Result<(), Wrong> {
    let wrong = |expected: &str, found: String| {
        Err(Wrong { path: path.to_owned(), expected: expected.to_owned(), found })
    };
    if path.is_empty() {
        return wrong("a path", "an empty name".to_owned());
    }
    if path.len() > PATH_LIMIT {
        return wrong("a path of at most 1024 bytes", format!("{} bytes", path.len()));
    }
    if path.starts_with('/') {
        return wrong("a relative path", "an absolute one".to_owned());
    }
    if let Some(bad) = path.chars().find(|c| c.is_control() || "\"\\:<>|*?".contains(*c)) {
        return wrong(
            "a path without control characters or any of \" \\ : < > | * ?",
            format!("{bad:?} in it"),
        );
    }
    for part in path.split('/') {
        match part {
            "" => return wrong("parts between slashes", "an empty part".to_owned()),
            "." | ".." => return wrong("a path without . and ..", format!("the part {part}")),
            _ if part.len() > 255 => {
                return wrong("parts of at most 255 bytes", format!("{} bytes", part.len()));
            }
            _ if part.ends_with('.') || part.ends_with(' ') => {
                return wrong("parts that end in neither a dot nor a space", format!("{part:?}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses two paths that some file system takes for one, and a file that is also a folder. `folders` are those that
/// have an entry of their own; others follow from the files.
///
/// # Errors
/// The later of the two.
pub fn refuse_collisions<'a>(
    files: impl Iterator<Item = &'a str>,
    folders: impl Iterator<Item = &'a str>,
) -> Result<(), Wrong> {
    let twice = |path: &str, other: &str| Wrong {
        path: path.to_owned(),
        expected: "every name once, upper and lower case alike".to_owned(),
        found: if other == path { "it twice".to_owned() } else { format!("{other} beside it") },
    };
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for path in files {
        if let Some(other) = seen.insert(path.to_lowercase(), path) {
            return Err(twice(path, other));
        }
    }
    let within =
        |path: &str| path.match_indices('/').map(|(end, _)| path[..end].to_lowercase()).collect::<Vec<_>>();
    let mut own: BTreeMap<String, &str> = BTreeMap::new();
    for path in folders {
        if let Some(other) = own.insert(path.to_lowercase(), path) {
            return Err(twice(path, other));
        }
    }
    for path in seen.values().chain(own.values()) {
        let itself = own.contains_key(&path.to_lowercase()).then(|| path.to_lowercase());
        if let Some(file) = within(path).into_iter().chain(itself).find_map(|folder| seen.get(&folder)) {
            return Err(Wrong {
                path: (*path).to_owned(),
                expected: "a name to be a file or a folder".to_owned(),
                found: format!("the file {file} as a folder too"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_are_refused_and_plain_ones_are_not() {
        for good in ["a", "payload/gates/kernel-only/run-1/runner-x.tar.gz", "ü/ö.json", "a b/c"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in
            ["", "/a", "a//b", "a/", "../a", "a/./b", "a\nb", "a\\b", "c:x", "a/b.", "a/b ", "a\u{7f}", "x?"]
        {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_differ_in_case_only_collide_and_so_do_a_file_and_its_folder() {
        assert!(refuse_collisions(["a/B", "a/b"].into_iter(), [].into_iter()).is_err());
        assert!(refuse_collisions(["a", "a/b"].into_iter(), [].into_iter()).is_err());
        assert!(refuse_collisions(["A", "a/b"].into_iter(), [].into_iter()).is_err());
        assert!(refuse_collisions(["a/b", "a/b"].into_iter(), [].into_iter()).is_err());
        assert!(refuse_collisions(["a/b", "a/c", "ab"].into_iter(), [].into_iter()).is_ok());
    }

    proptest! {
        #[test]
        fn an_accepted_path_stays_inside_the_folder_it_is_joined_to(path in ".{0,40}") {
            if check(&path).is_ok() {
                let root = std::path::Path::new("/run/pack");
                prop_assert!(crate::files::contains(root, &root.join(&path)));
            }
        }
    }
}
