package procore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// fault says what went wrong with a connection in words of our own. The text
// of net/http's errors will not do: for an answer that is not HTTP it quotes
// what the server sent, which may be a token.
func fault(err error) string {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		op      *net.OpError
		name    x509.HostnameError
		errno   syscall.Errno
		network net.Error
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timed out"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host name is not known"
	case errors.As(err, &dns):
		return "the host name could not be looked up"
	case errors.As(err, &name):
		return "TLS: the certificate is for another host"
	case errors.As(err, &cert):
		return "TLS: the certificate is not trusted"
	case errors.As(err, &record):
		return "TLS: the server does not speak TLS"
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"): // crypto/tls's name for an alert
		return "TLS: the handshake was refused"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	case errors.As(err, &network) && network.Timeout():
		return "timed out"
	}
	return "the connection failed or its answer is not HTTP"
}
