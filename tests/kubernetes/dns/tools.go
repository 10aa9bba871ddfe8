//go:build tools

// CoreDNS, as Go's module client builds it: in a module of its own, since it asks for other libraries than Kubernetes does.
package dns

import _ "github.com/coredns/coredns"
