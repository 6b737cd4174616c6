//! Names of tools in one form, for denying: what a reader could take for the same name is the same name.

use icu_normalizer::ComposingNormalizerBorrowed;

/// Code points that no reader shows (Default_Ignorable_Code_Point, Unicode 17): first and last.
const IGNORABLE: [(char, char); 17] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// The name in compatibility form (NFKC), without case and without code points that nobody sees.
pub(super) fn folded(name: &str) -> String {
    let seen = |c: &char| !IGNORABLE.iter().any(|(first, last)| (first..=last).contains(&c));
    let visible: String = name.chars().filter(seen).collect();
    let compatible = nfkc(&visible);
    // Through capitals, so that letters with several small forms become one.
    nfkc(&compatible.to_uppercase().to_lowercase()).chars().filter(seen).collect()
}

/// The text in composed compatibility form.
pub(super) fn nfkc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc().normalize(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_a_name_are_one_name() {
        for spelling in [
            "Delete_File",
            "DELETE_FILE",
            "\u{ff44}elete_file",
            "delete\u{200b}_file",
            "delete_\u{ad}file",
            "delete_\u{fb01}le",
            "\u{feff}delete_file",
        ] {
            assert_eq!(folded(spelling), "delete_file", "{spelling:?}");
        }
        assert_eq!(folded("cafe\u{301}"), folded("CAF\u{c9}"));
        assert_eq!(folded("ma\u{df}"), folded("MASS"));
        assert_ne!(folded("delete-file"), folded("delete_file"));
    }

    proptest! {
        #[test]
        fn what_is_folded_stays_so(name in "\\PC{0,12}") {
            let once = folded(&name);
            prop_assert_eq!(folded(&once), once);
        }
    }
}
