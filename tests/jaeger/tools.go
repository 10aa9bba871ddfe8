//go:build tools

// Jaeger as a dependency, so that go.mod and go.sum say which one and with what.
package jaeger

import _ "github.com/jaegertracing/jaeger/cmd/jaeger"
