//! stub
/// stub
#[derive(Debug)]
pub struct Environment;
