//! What stands in a folder of Python packages, from the metadata that every wheel installs (`*.dist-info`).

use crate::error::{Error, Result};
use crate::host::rights::Rights;
use std::collections::BTreeMap;
use std::path::Path;

/// What `*.dist-info` says of an installed package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    pub version: String,
    /// Wheel tags, e.g. `cp311-cp311-manylinux_2_17_x86_64`.
    pub tags: Vec<String>,
    /// What it needs beside it, each with its marker.
    pub requires: Vec<String>,
    /// The versions of Python that it works with; everything when empty.
    pub python: String,
}

/// Every package of the target folder, by normalised name.
pub(super) fn installed(target: &Path) -> Result<BTreeMap<String, Distribution>> {
    let mut found = BTreeMap::new();
    let entries = Rights::of_caller()?.act(|| Ok(std::fs::read_dir(target)))?;
    for entry in entries.map_err(|error| Error::io("cannot list", target, error))? {
        let path = entry.map_err(|error| Error::io("cannot list", target, error))?.path();
        if path.extension().is_none_or(|extension| extension != "dist-info") {
            continue;
        }
        if let Some((name, package)) = metadata(&path) {
            found.insert(normal(&name), package);
        }
    }
    Ok(found)
}

fn metadata(dist_info: &Path) -> Option<(String, Distribution)> {
    let caller = Rights::of_caller().ok()?;
    let text = caller.read_text(&dist_info.join("METADATA")).ok()?;
    let tags = caller.read_text(&dist_info.join("WHEEL")).unwrap_or_default();
    let one = |key: &str| headers(&text, key).into_iter().next();
    let package = Distribution {
        version: one("Version:")?,
        tags: headers(&tags, "Tag:"),
        requires: headers(&text, "Requires-Dist:"),
        python: one("Requires-Python:").unwrap_or_default(),
    };
    Some((one("Name:")?, package))
}

/// The values of a header, from before the first empty line.
fn headers(text: &str, key: &str) -> Vec<String> {
    text.lines()
        .take_while(|line| !line.trim_end().is_empty())
        .filter_map(|line| line.strip_prefix(key))
        .map(|value| value.trim().to_owned())
        .collect()
}

/// A package name as PyPI compares names.
pub(super) fn normal(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '-' | '_' | '.' if text.ends_with('-') => {}
            '-' | '_' | '.' => text.push('-'),
            other => text.extend(other.to_lowercase()),
        }
    }
    text
}
