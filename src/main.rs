//! The `assay-gates` command: parse, call, map the outcome to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    assay_gates::cli::main()
}
