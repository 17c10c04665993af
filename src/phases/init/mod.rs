//! placeholder until the init branch is merged
use crate::host::Host;
use crate::plan::Events;
pub fn wait_ready(_: &Host, _: &Events, _: std::time::Duration) -> anyhow::Result<()> {
    Ok(())
}
pub fn provision(_: &Host, _: &Events, _: &crate::oem::Cluster, _: &str) -> anyhow::Result<()> {
    anyhow::bail!("init is not in this build")
}
