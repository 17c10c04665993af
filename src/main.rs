//! Arguments in, exit code out; everything else is the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    rekindle::run(&args, std::process::id() == 1)
}
