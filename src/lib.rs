
pub mod adapters;
pub mod app;
pub mod core;
pub mod driver;
pub mod http;
pub mod pipeline;
pub mod wire;
