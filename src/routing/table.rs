//! The route table.
use crate::config::Config;

/// See the file's head.
#[derive(Debug)]
pub struct RouteTable {}

impl RouteTable {
    /// Builds the table; cannot fail, since `Config` is valid.
    pub fn new(config: &Config) -> Self {
        let _ = config;
        todo!()
    }
}
