//! Something that goes on elsewhere: one line per change, and on a terminal a line that says what runs now.

use super::diagnostic;
use crate::files::visible;
use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// The view.
pub struct Follow {
    bar: Option<ProgressBar>,
}

impl Follow {
    /// With a live line if standard error is a terminal.
    #[must_use]
    pub fn new() -> Self {
        let bar = Term::stderr().is_term().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar }
    }

    /// Something changed.
    pub fn change(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| diagnostic(line)),
            None => diagnostic(line),
        }
    }

    /// What runs now; shown on a terminal only.
    pub fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(visible(&text.replace('\n', " ")).into_owned());
        }
    }
}

impl Default for Follow {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
