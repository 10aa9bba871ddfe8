//! End to end, through public doors only. One binary, so that it links once.

mod floors;
mod sidecar;
