//! What the tests share: a lab that runs a folder of YAML, programs inside its pods, addresses, and waiting without
//! sleeping.
//!
//! Knows no crate of the mesh: it starts the program and looks at it from outside.

pub mod counterparts;
pub mod kubernetes;
pub mod lab;
pub mod loopback;
pub mod namespaces;
pub mod processes;
pub mod sink;
pub mod wait;
