// A workload that uses go-spiffe against the SPIFFE Workload API, found by SPIFFE_ENDPOINT_SOCKET; prints JSON.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const patience = 40 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	said, err := run(ctx)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(said)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (map[string]any, error) {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	defer source.Close()
	first, err := source.GetX509SVID()
	if err != nil {
		return nil, err
	}
	peer, err := handshake(source)
	if err != nil {
		return nil, fmt.Errorf("mutual TLS: %w", err)
	}
	var second *x509svid.SVID
	for second == nil || second.Certificates[0].Equal(first.Certificates[0]) {
		if err := source.WaitUntilUpdated(ctx); err != nil {
			return nil, fmt.Errorf("rotation: %w", err)
		}
		if second, err = source.GetX509SVID(); err != nil {
			return nil, err
		}
	}

	tokens, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return nil, fmt.Errorf("token source: %w", err)
	}
	defer tokens.Close()
	token, err := tokens.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "bank"})
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	// By the keys that the socket gave.
	verified, err := jwtsvid.ParseAndValidate(token.Marshal(), tokens, []string{"bank"})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if _, err := workloadapi.ValidateJWTSVID(ctx, token.Marshal(), "bank"); err != nil {
		return nil, fmt.Errorf("ask to verify: %w", err)
	}
	_, refused := workloadapi.ValidateJWTSVID(ctx, token.Marshal(), "shop")
	return map[string]any{
		"spiffe_id": first.ID.String(),
		"peer":      peer,
		"serials":   []string{first.Certificates[0].SerialNumber.String(), second.Certificates[0].SerialNumber.String()},
		"token_of":  verified.ID.String(),
		"refused":   fmt.Sprint(refused),
	}, nil
}

// Both ends are the pod's; each demands exactly that identity of the other.
func handshake(source *workloadapi.X509Source) (string, error) {
	svid, err := source.GetX509SVID()
	if err != nil {
		return "", err
	}
	only := tlsconfig.AuthorizeID(svid.ID)
	ours, theirs := net.Pipe()
	go func() {
		server := tls.Server(theirs, tlsconfig.MTLSServerConfig(source, source, only))
		_, _ = io.Copy(server, server)
	}()
	client := tls.Client(ours, tlsconfig.MTLSClientConfig(source, source, only))
	defer client.Close()
	if _, err := client.Write([]byte("ping")); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(client, make([]byte, 4)); err != nil {
		return "", err
	}
	id, err := x509svid.IDFromCert(client.ConnectionState().PeerCertificates[0])
	return id.String(), err
}
