//! What a running lab writes for others: tokens for its sidecars, generated objects for its control plane, names for
//! its pods, and the record that `lab exec` and `lab status` read.

use std::{collections::BTreeMap, fs, os::unix::fs::chown, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Context, Result};

use crate::lab::{
    folder,
    hosts::hosts_file,
    issuer::{Bearer, Issuer},
    objects,
    plan::Plan,
    pod_plan::PodPlan,
    record::Record,
    resident::Pod,
    state::write_whole,
};

/// Writes a lab's papers.
pub struct Paperwork {
    /// The folder of generated objects.
    pub generated: PathBuf,
    /// The record's file.
    pub record: PathBuf,
    /// Signs tokens.
    pub issuer: Issuer,
    /// The sidecars' uid: tokens are theirs alone.
    pub owner: u32,
}

impl Paperwork {
    /// A pod's token, good for an hour from now.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write_token(&self, pod: &Pod) -> Result<()> {
        let plan = pod.plan();
        let bearer = Bearer {
            namespace: &plan.metadata.namespace,
            service_account: &plan.service_account,
            pod: &plan.metadata.name,
            pod_uid: &plan.uid,
        };
        let token = self.issuer.token(bearer, SystemTime::now())?;
        // Owned before it is in place, so that the sidecar never meets a token that it may not read.
        let secrets = pod.files().secrets();
        let draft = secrets.join(".token");
        write_whole(&draft, token.as_bytes(), 0o400)?;
        chown(&draft, Some(self.owner), Some(self.owner)).context("hand the token to the sidecar")?;
        fs::rename(&draft, secrets.join("token")).context("put the token in place")
    }

    /// A pod's object, with its address and its readiness.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write_pod(&self, pod: &Pod) -> Result<()> {
        let (name, text) = objects::pod(pod.plan(), pod.readiness());
        write_whole(&self.generated.join(name), text.as_bytes(), 0o600)
    }

    /// The services' objects; those of services that are gone are removed.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write_services(&self, plan: &Plan) -> Result<()> {
        let wanted: BTreeMap<String, String> = plan.services.iter().map(objects::service).collect();
        for file in folder::files(&self.generated)? {
            let name = file.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            if name.starts_with("service.") && !wanted.contains_key(name) {
                fs::remove_file(&file)?;
            }
        }
        for (name, text) in wanted {
            let path = self.generated.join(name);
            // An unchanged file shall not wake the control plane.
            if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                write_whole(&path, text.as_bytes(), 0o600)?;
            }
        }
        Ok(())
    }

    /// The record of all pods.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write_record(&self, pods: &[Arc<Pod>]) -> Result<()> {
        let record = Record { daemon: std::process::id(), pods: pods.iter().map(|it| it.record()).collect() };
        write_whole(&self.record, &serde_json::to_vec(&record)?, 0o600)
    }
}

/// The text of a pod's hosts file.
#[must_use]
pub fn hosts_of(pod: &PodPlan, plan: &Plan) -> String {
    hosts_file(&pod.metadata.name, &pod.addresses.both(), &plan.hosts(pod))
}
