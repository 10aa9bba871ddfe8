# The node's certificates and kubeconfigs, in the folder papers/ of the room. Sourced, not run.

# paper NAME SUBJECT [ALTERNATIVE NAMES]: a certificate of the cluster's authority.
paper() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${3:-DNS:localhost}" >ext
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 2 -extfile ext 2>/dev/null
}

# kubeconfig NAME: for whoever the paper of that name is.
kubeconfig() {
    cat >"$1.conf" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: node, cluster: {server: "https://$address:6443", certificate-authority: $room/papers/ca.crt}}]
users: [{name: $1, user: {client-certificate: $room/papers/$1.crt, client-key: $room/papers/$1.key}}]
contexts: [{name: node, context: {cluster: node, user: $1}}]
current-context: node
YAML
}

papers() (
    mkdir "$room/papers"
    cd "$room/papers"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=node -days 2 2>/dev/null
    paper apiserver /CN=kube-apiserver "IP:$address,IP:10.96.0.1,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    paper admin /O=system:masters/CN=admin
    paper controllers /CN=system:kube-controller-manager
    paper scheduler /CN=system:kube-scheduler
    paper proxy /CN=system:kube-proxy
    paper kubelet /O=system:nodes/CN=system:node:node "IP:$address,DNS:node"
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    for name in admin controllers scheduler proxy kubelet; do kubeconfig "$name"; done
)
