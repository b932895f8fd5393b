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

// fault describes a connection's error in fixed texts. It does not use the text of
// net/http's errors: for an answer that is not HTTP they quote what the server
// sent, which may be a token.
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
	if refused, ok := errors.AsType[*refusedByProxy](err); ok {
		return refused.Error()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timed out"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host name is not known"
	case errors.As(err, &dns):
		return "the host name could not be resolved"
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

// proxyVariables are the variables from which HTTP clients take a proxy.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}

// unreached is fault for a request without a connection. If not even the proxy was
// reached, it says so. If the host was not reached at all and a proxy variable is set, it
// adds that the variable is not used, because that is the likely cause.
func unreached(err error) string {
	text := fault(err)
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case !isOp || errors.Is(err, context.Canceled):
		return text
	case op.Op == "proxyconnect":
		return "the proxy of TOKENTURN_PROXY cannot be reached: " + text
	case op.Op != "dial":
		return text
	}
	for _, name := range proxyVariables {
		if os.Getenv(name) != "" {
			return text + " (" + name + " is set, but tokenturn does not use it: secrets go to this host directly; " +
				"to reach it through a proxy, set TOKENTURN_PROXY)"
		}
	}
	return text
}
