package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/smithy-go"
)

// credentialsPatience is how long finding credentials may take. Outside of EC2 the SDK
// notices only after some seconds that no instance metadata service answers.
const credentialsPatience = 30 * time.Second

// checkCredentials finds the credentials before the first call, because the error of a
// call would not say why there are none. Later calls use the same ones.
func (conf *configuration) checkCredentials(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, credentialsPatience)
	defer cancel()
	if conf.aws.Credentials == nil {
		return conf.noCredentials()
	}
	if _, err := conf.aws.Credentials.Retrieve(ctx); err != nil {
		return conf.unusable(err)
	}
	return nil
}

// unusable explains why there are no credentials. The SDK gives a type to few of its
// errors, but says which sources it has asked.
func (conf *configuration) unusable(err error) error {
	asked := func(any ...aws.CredentialSource) bool {
		sources, _ := conf.aws.Credentials.(aws.CredentialProviderSource)
		return sources != nil && slices.ContainsFunc(sources.ProviderSources(),
			func(s aws.CredentialSource) bool { return slices.Contains(any, s) })
	}
	_, invalid := errors.AsType[*ssocreds.InvalidTokenError](err)
	process, failed := errors.AsType[*processcreds.ProviderError](err)
	answer, answered := errors.AsType[smithy.APIError](err)
	_, unreached := errors.AsType[*net.OpError](err) // a missing file is a net.Error too
	single := asked(aws.CredentialSourceSSO, aws.CredentialSourceSSOLegacy, aws.CredentialSourceProfileSSO,
		aws.CredentialSourceProfileSSOLegacy)
	login := asked(aws.CredentialSourceLogin, aws.CredentialSourceProfileLogin)
	switch {
	case invalid:
		return conf.logIn("aws sso login")
	case errors.Is(err, context.Canceled):
		return errInterrupted
	case (single || login) && unreached:
		return fmt.Errorf("AWS cannot be reached to renew the session%s: check the network and your AWS configuration: %w",
			conf.ofAWSProfile(), err)
	case single && answered && answer.ErrorCode() == "ForbiddenException":
		return fmt.Errorf("your SSO session%s is valid, but AWS gives it no credentials: check sso_account_id and "+
			"sso_role_name of the AWS profile, or ask for access to that role", conf.ofAWSProfile())
	case single:
		return conf.logIn("aws sso login")
	case login:
		return conf.logIn("aws login")
	case failed:
		return fmt.Errorf("the credential_process%s failed; run it by hand to see why: %w", conf.ofAWSProfile(),
			processFault(process))
	case asked(aws.CredentialSourceIMDS, aws.CredentialSourceProfileNamedProvider):
		return conf.noCredentials()
	case answered && credentialFaults[answer.ErrorCode()] != "":
		return conf.explain(err)
	}
	return fmt.Errorf("AWS gives no credentials%s: %w", conf.ofAWSProfile(), err)
}

// processFault is how a credential_process ended, without its output, which may contain keys.
func processFault(err *processcreds.ProviderError) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit
	}
	return errors.New("its output cannot be used")
}

// logIn says how to begin a new session.
func (conf *configuration) logIn(command string) error {
	if name := conf.awsProfileName(); name != "" {
		command += " --profile " + name
	}
	return fmt.Errorf("you are not logged in to AWS, or your session is over; log in with: %s", command)
}

func (conf *configuration) noCredentials() error {
	text := "there are no AWS credentials"
	if name := conf.awsProfileName(); name != "" {
		text += " in the AWS profile " + name
	}
	return fmt.Errorf("%s: log in with `aws sso login --profile NAME` or `aws login` and name that AWS profile with "+
		"--profile or AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", text)
}

// awsProfileName is the AWS profile that the credentials are of; empty for the default one,
// and if they are the keys of the environment: for the SDK, these win over AWS_PROFILE.
func (conf *configuration) awsProfileName() string {
	if conf.awsProfile.value != "" {
		return conf.awsProfile.value
	}
	for _, source := range conf.aws.ConfigSources {
		if variables, ok := source.(awsconfig.EnvConfig); ok && !variables.Credentials.HasKeys() {
			return variables.SharedConfigProfile
		}
	}
	return ""
}

func (conf *configuration) ofAWSProfile() string {
	if name := conf.awsProfileName(); name != "" {
		return " of the AWS profile " + name
	}
	return ""
}

// What is wrong with credentials that AWS refuses.
const (
	expired = "have expired"
	unknown = "are not known to AWS in this region"
	wrong   = "do not fit together, or the clock of this machine is wrong"
	late    = "were refused because of the clock of this machine"
)

// credentialFaults are the error codes with which AWS services refuse credentials. (Common
// errors of the Query API, of DynamoDB and of KMS; Signature Version 4.)
var credentialFaults = map[string]string{
	"ExpiredToken": expired, "ExpiredTokenException": expired, "TokenRefreshRequired": expired,
	"UnrecognizedClientException": unknown, "InvalidClientTokenId": unknown, "InvalidAccessKeyId": unknown,
	"InvalidToken": unknown, "AuthFailure": unknown,
	"MissingAuthenticationToken": unknown, "MissingAuthenticationTokenException": unknown,
	"IncompleteSignature": unknown, "IncompleteSignatureException": unknown,
	"InvalidSignatureException": wrong, "SignatureDoesNotMatch": wrong,
	"RequestExpired": late, "RequestTimeTooSkewed": late,
}

// explain replaces the SDK's chain of errors with one text if the cause is the credentials,
// the AWS profile, the region or the endpoint. It returns every other error as it is.
func (conf *configuration) explain(err error) error {
	if none, ok := errors.AsType[awsconfig.SharedConfigProfileNotExistError](err); ok {
		return exitf(usage, "there is no AWS profile %s; `aws configure list-profiles` lists them", none.Profile)
	}
	if broken, ok := errors.AsType[awsconfig.SharedConfigLoadError](err); ok {
		return exitf(usage, "the AWS configuration file %s cannot be read: %w", broken.Filename, broken.Err)
	}
	call, called := errors.AsType[*smithy.OperationError](err)
	if !called {
		return err // not a call to AWS
	}
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		if fault := credentialFaults[answer.ErrorCode()]; fault != "" {
			return conf.refusedCredentials(fault, answer.ErrorCode())
		}
		return err
	}
	if proxied, ok := errors.AsType[*net.OpError](err); ok && proxied.Op == "proxyconnect" {
		return fmt.Errorf("%s cannot be reached, because the proxy of %s cannot be: check that variable, or name the host "+
			"in NO_PROXY if AWS is reached without a proxy: %w", call.ServiceID, conf.proxyVariable(), proxied.Err)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return fmt.Errorf("the host %s of %s is not known: check the region %s%s, and the network", dns.Name,
			call.ServiceID, conf.aws.Region, conf.endpoint())
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return fmt.Errorf("%s cannot be reached at %s: check the network and the region %s%s", call.ServiceID, dial.Addr,
			conf.aws.Region, conf.endpoint())
	}
	return err
}

// endpoint names the address that replaces AWS's own, if there is one.
func (conf *configuration) endpoint() string {
	if conf.aws.BaseEndpoint == nil {
		return ""
	}
	return " and AWS_ENDPOINT_URL"
}

// proxyVariable is the variable with the proxy that the AWS SDK uses.
func (conf *configuration) proxyVariable() string {
	names := []string{"HTTPS_PROXY", "https_proxy"}
	if strings.HasPrefix(aws.ToString(conf.aws.BaseEndpoint), "http://") {
		names = []string{"HTTP_PROXY", "http_proxy"}
	}
	for _, name := range names {
		if slices.ContainsFunc(conf.environ, func(assignment string) bool {
			value, ok := strings.CutPrefix(assignment, name+"=")
			return ok && value != ""
		}) {
			return name
		}
	}
	return names[0]
}

func (conf *configuration) refusedCredentials(fault, code string) error {
	remedy := "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the AWS profile"
	name := conf.awsProfileName()
	switch {
	case fault == late:
		remedy = "set the clock of this machine"
	case fault == unknown:
		remedy += fmt.Sprintf(", and the region %s%s", conf.aws.Region, conf.endpoint())
	case fault == expired && name != "":
		remedy = "log in with: aws sso login --profile " + name + "\nor replace the keys of that AWS profile"
	case fault == expired:
		remedy = "log in again, with `aws sso login --profile NAME` and --profile NAME, or set new values of " +
			"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
	}
	return fmt.Errorf("your AWS credentials%s %s (%s): %s", conf.ofAWSProfile(), fault, code, remedy)
}
