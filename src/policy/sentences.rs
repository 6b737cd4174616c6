//! A policy in sentences.

use super::Policy;
use super::definition::{Decoding, Default};
use std::fmt::Write;

impl Policy {
    /// What the policy says, a sentence a line, in the order in which it decides.
    #[must_use]
    pub fn sentences(&self) -> String {
        let mut text = String::new();
        let mut say = |line: String| {
            let _infallible = writeln!(text, "{line}");
        };
        for (pattern, glob) in self.deny.listed() {
            say(format!("{} is denied, in any spelling.", named(pattern, glob)));
        }
        for (pattern, glob) in self.allow.listed() {
            say(format!("{} may be called.", named(pattern, glob)));
        }
        say(match self.default {
            Default::Allow => "Any other tool may be called.".to_owned(),
            Default::Deny => "Any other tool is denied.".to_owned(),
        });
        for tool in self.arguments.keys() {
            say(format!("The arguments of {tool} must satisfy its schema."));
        }
        for (tool, arguments) in &self.paths {
            for (argument, roots) in arguments {
                let roots: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
                say(format!("`{argument}` of {tool} must be a path inside {}.", roots.join(" or ")));
            }
            say(match self.decoding.get(tool) {
                None => format!("Paths of {tool} that could be read in more than one way are refused."),
                Some(Decoding::None) => format!("The server of {tool} takes paths as they are."),
                Some(Decoding::Percent) => {
                    format!("The server of {tool} decodes percent signs in paths once.")
                }
                Some(Decoding::Uri) => {
                    format!("The server of {tool} takes `file:` URIs or paths as they are.")
                }
            });
        }
        say("Other requests than tool calls pass.".to_owned());
        text
    }
}

fn named(pattern: &str, glob: bool) -> String {
    if glob { format!("Every tool whose name fits `{pattern}`") } else { format!("The tool {pattern}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_policy_has_its_sentence() {
        let policy = "schema: assay.gates.policy.v0\ndefault: deny\ntools: {allow: [read_file, 'list_*'], deny: [list_secrets]}\narguments:\n  list_files: {type: object}\npaths:\n  read_file: {path: [/data, /more]}\ndecoding: {read_file: percent}\n";
        assert_eq!(
            Policy::parse(policy, "p").unwrap().sentences(),
            "The tool list_secrets is denied, in any spelling.\n\
             The tool read_file may be called.\n\
             Every tool whose name fits `list_*` may be called.\n\
             Any other tool is denied.\n\
             The arguments of list_files must satisfy its schema.\n\
             `path` of read_file must be a path inside /data or /more.\n\
             The server of read_file decodes percent signs in paths once.\n\
             Other requests than tool calls pass.\n"
        );
    }
}
