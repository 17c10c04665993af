//! placeholder until the init branch is merged
pub fn main(_: &[String]) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
