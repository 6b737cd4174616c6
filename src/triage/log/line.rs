//! One log line as a person would read it.

use std::fmt;

/// What the runner marked the line as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `##[group]`.
    Group,
    /// `##[endgroup]`.
    EndGroup,
    /// `##[error]`.
    Error,
    /// `##[warning]`.
    Warning,
    /// `##[notice]`, `##[debug]`, `##[command]`, `##[section]`.
    Other,
    /// Where a step begins, in forms that say so; the text is its name.
    Step,
    /// The title of a step's group where the form keeps no marks: `Run …`.
    Title,
}

/// A line taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The job, where the form names it.
    pub job: Option<String>,
    /// The step, where the form names it.
    pub step: Option<String>,
    /// The runner's time; `None` on a continuation line and in logs that no runner wrote.
    pub time: Option<String>,
    /// The runner's mark.
    pub tag: Option<Tag>,
    /// The message: no time, no mark, no colours; broken UTF-8 as U+FFFD.
    pub text: String,
}

/// The line in the one form in which speakers are told apart: its mark, if it has one that counts, and the message.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.tag {
            Some(Tag::Error) => "##[error]",
            Some(Tag::Warning) => "##[warning]",
            _ => "",
        })?;
        f.write_str(&self.text)
    }
}
