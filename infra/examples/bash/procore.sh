# Calls Procore with the token that tokenturn keeps in AWS Secrets Manager.
#
#   source procore.sh
#   PROCORE_CONNECTION=production/acme
#   procore /rest/v1.0/me                        prints the answer; fails unless it is 2xx
#   procore /rest/v1.0/projects --get -d company_id=4264807      further options go to curl
#
# Needs the AWS CLI, jq, curl and bash 4.3 or later. The token is read once a minute, kept in variables
# of this shell, and passed to curl on a file descriptor, so it is in no argument list. $(procore ...)
# runs in a subshell and reads the secret each time; procore ... >file does not. A body is sent again
# after a 401: give it as text or as @file, not on standard input.

# Reads the secret again, at most once a second. Ignores an older document: a read may be stale.
procore_read() {
  local now document
  printf -v now '%(%s)T' -1
  ((now > ${procore_read_at:-0})) || sleep 1
  printf -v procore_read_at '%(%s)T' -1
  document=$(AWS_MAX_ATTEMPTS=2 aws secretsmanager get-secret-value --cli-connect-timeout 2 --cli-read-timeout 3 \
    --secret-id "${PROCORE_PREFIX:-tokenturn}/connection/$PROCORE_CONNECTION" --version-stage AWSCURRENT --query SecretString --output text |
    jq -r '[.epoch, .generation, .access_token, .api_url, .company_id] | @tsv')
  [[ -n $document ]] || return
  local old=(${procore_known:-0 -1}) new=($document)
  if ((new[0] > old[0] || new[0] == old[0] && new[1] >= old[1])); then procore_known=$document; fi
}

# Makes the request with the known token. Sets procore_status, 000 if there is no answer. Writes the answer
# to the file in the first argument.
procore_send() {
  local file=$1 path=$2 known=($procore_known)
  shift 2
  procore_status=$(curl --silent --show-error --output "$file" --write-out '%{http_code}' \
    --config <(printf 'header = "Authorization: Bearer %s"\n' "${known[2]}"
      if [[ -n ${known[4]:-} ]]; then printf 'header = "Procore-Company-Id: %s"\n' "${known[4]}"; fi) \
    "$@" "${known[3]}$path")
}

procore() {
  local file now refused tries
  [[ $1 == /* ]] || { echo "procore: a path begins with a slash" >&2; return 2; } # with ".example.com" the host would be another
  printf -v now '%(%s)T' -1
  if [[ -z ${procore_known:-} ]] || ((now - procore_read_at > 60)); then
    procore_read || [[ -n ${procore_known:-} ]] || return # in an outage, use the last token on
  fi
  file=$(mktemp) || return
  procore_send "$file" "$@"
  # A new token is published just after it is made: look for a few seconds.
  for ((tries = 0; tries < 6; tries++)); do
    if [[ $procore_status != 401 ]]; then break; fi
    refused=$procore_known
    procore_read || continue
    if [[ $procore_known != "$refused" ]]; then procore_send "$file" "$@"; fi
  done
  cat "$file"
  rm -f "$file"
  [[ $procore_status == 2* ]] || { echo "procore: $1 answers $procore_status" >&2; return 1; }
}
