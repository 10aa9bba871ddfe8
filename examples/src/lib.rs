//! Plain applications, and the lab that runs a mesh of them on one machine.

pub mod apps;
pub mod demo;
pub mod lab;
