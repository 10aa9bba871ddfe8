//! The attempts, one file for each. An attempt does something on the [`Stage`](crate::demo::stage::Stage), looks at
//! what came and at what the sidecars say about it, and leaves the stage as it found it.

pub(crate) mod control_plane;
pub(crate) mod intruder;
pub(crate) mod journey;
pub(crate) mod law;
pub(crate) mod outside;
pub(crate) mod renewal;
pub(crate) mod stranger;
pub(crate) mod wire;
