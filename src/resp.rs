//! Placeholder until merged.
/// x
#[derive(Debug)]
pub struct RespParts {
    /// x
    pub reader: crate::snapshot::Reader,
    /// x
    pub clock: crate::clock::SharedClock,
}
/// x
pub async fn serve(
    _l: tokio::net::TcpListener,
    _c: crate::config::RespConfig,
    _p: RespParts,
    d: crate::shutdown::Drain,
) {
    d.begun().await
}
