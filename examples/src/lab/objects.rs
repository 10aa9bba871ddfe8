//! The objects that a cluster's API server would add to the operator's own: pods with their addresses, services with
//! their cluster IPs. Written into a folder that the control plane reads beside the operator's.
//!
//! JSON is YAML, so the files are written as JSON.

use douane_proto::resource::{ServicePort, TargetPort, Transport};
use serde_json::{Value, json};

use crate::lab::{plan::ServicePlan, pod_plan::PodPlan};

/// Does a pod take new traffic?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, or not now.
    NotReady,
    /// Its sidecar and its containers run.
    Ready,
}

/// The file and the text of a pod.
#[must_use]
pub fn pod(pod: &PodPlan, readiness: Readiness) -> (String, String) {
    let metadata = &pod.metadata;
    let ready = if readiness == Readiness::Ready { "True" } else { "False" };
    let containers: Vec<_> = pod
        .containers
        .iter()
        .map(|container| {
            let ports: Vec<_> = container
                .ports
                .iter()
                .map(|port| {
                    json!({
                        "name": port.name,
                        "containerPort": port.number.value,
                        "protocol": transport(port.transport),
                    })
                })
                .collect();
            json!({ "name": container.name, "command": container.command, "ports": ports })
        })
        .collect();
    let owners: Vec<_> = pod
        .deployment
        .iter()
        .map(|name| json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": name }))
        .collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": pod.uid,
            "labels": metadata.labels,
            "annotations": metadata.annotations,
            "ownerReferences": owners,
        },
        "spec": { "serviceAccountName": pod.service_account, "containers": containers },
        "status": {
            "phase": "Running",
            "podIP": pod.addresses.v4,
            "podIPs": pod.addresses.both().map(|ip| json!({ "ip": ip })),
            "conditions": [{ "type": "Ready", "status": ready }],
        },
    });
    (format!("pod.{}.{}.yaml", metadata.namespace, metadata.name), text(&object))
}

/// The file and the text of a service.
#[must_use]
pub fn service(service: &ServicePlan) -> (String, String) {
    let metadata = &service.metadata;
    let addresses: Vec<_> = if service.addresses.is_empty() {
        vec!["None".to_owned()]
    } else {
        service.addresses.iter().map(ToString::to_string).collect()
    };
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": metadata.labels,
            "annotations": metadata.annotations,
        },
        "spec": {
            "selector": service.service.selector,
            "ports": service.service.ports.iter().map(port).collect::<Vec<_>>(),
            "clusterIP": addresses.first(),
            "clusterIPs": addresses,
        },
    });
    (format!("service.{}.{}.yaml", metadata.namespace, metadata.name), text(&object))
}

fn port(port: &ServicePort) -> Value {
    let target = match &port.target {
        TargetPort::Number(number) => json!(number),
        TargetPort::Name(name) => json!(name),
    };
    let mut object = json!({
        "name": port.name,
        "port": port.number.value,
        "targetPort": target,
        "protocol": transport(port.transport),
    });
    if let (Some(protocol), Some(fields)) = (&port.app_protocol, object.as_object_mut()) {
        fields.insert("appProtocol".to_owned(), json!(protocol));
    }
    object
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Sctp => "SCTP",
    }
}

fn text(object: &Value) -> String {
    format!("{object:#}\n")
}
