//! Where gates are defined in the repository: what findings and annotations point to.

use crate::gate::Catalog;
use std::path::Path;

/// A line of a file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Relative to the repository, with `/`.
    pub file: String,
    /// From 1.
    pub line: usize,
}

/// The definitions, by the ids of their gates.
#[derive(Debug, Default)]
pub struct Definitions(Vec<(String, Position, String)>);

impl Definitions {
    /// Reads the definitions in `folder`, which stands in the repository `base`; none when they are not valid.
    #[must_use]
    pub fn read(folder: &Path, base: &Path) -> Self {
        Catalog::load(folder).map_or_else(|_| Self::default(), |catalog| Self::of(&catalog, base))
    }

    /// Those of `catalog` that stand in the repository `base`.
    #[must_use]
    pub fn of(catalog: &Catalog, base: &Path) -> Self {
        let Ok(base) = base.canonicalize() else { return Self::default() };
        let entries = catalog.entries().iter().filter_map(|entry| {
            let parts: Vec<_> =
                entry.file.strip_prefix(&base).ok()?.iter().map(|part| part.to_string_lossy()).collect();
            let position = Position { file: parts.join("/"), line: 1 };
            Some((entry.definition.id.clone(), position, entry.text.clone()))
        });
        Self(entries.collect())
    }

    /// The line of `gate`'s definition that begins with one of `keys`, the first of them that is there; else its first line.
    #[must_use]
    pub fn position(&self, gate: &str, keys: &[&str]) -> Option<Position> {
        let (_, first, text) = self.0.iter().find(|(id, ..)| id == gate)?;
        let line = |key: &str| {
            text.lines().position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
        };
        let line = keys.iter().find_map(|key| line(key)).map_or(first.line, |index| index + 1);
        Some(Position { line, ..first.clone() })
    }
}
