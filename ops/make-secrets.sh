#!/bin/sh
# Makes the secrets of a deployment, one a file. What is there already stays.
#   sh ops/make-secrets.sh secrets postgres redis                      for docker-compose.yml
#   sh ops/make-secrets.sh /etc/uplift/credentials 127.0.0.1 127.0.0.1  for ops/systemd, as root
# The last two words are the hosts of PostgreSQL and Redis.
#
# Only the owner can enter the folder. The files themselves can be read by all: Compose mounts them
# with the modes that they have here, for the accounts inside the containers.
set -eu
folder=${1:?the folder} postgres=${2:?the host of PostgreSQL} redis=${3:?the host of Redis}

mkdir -p "$folder"
chmod 0700 "$folder"
cd "$folder"

random() { # letters and digits, since it becomes part of a URL
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}
keep() { # NAME: what comes in, in a file of that name, unless there is one
  [ -s "$1" ] || cat >"$1"
  chmod 0444 "$1"
}

# The superuser's password is for the administrator alone. Each role has an address of its own: the
# owner's is for `uplift migrate`, the reader's for `uplift doctor` and what measures the ledger.
random | keep postgres_password
owner=$(random) app=$(random) reader=$(random)
keep roles.sql <<END
CREATE ROLE uplift_app;
CREATE ROLE uplift_read;
CREATE ROLE uplift_owner LOGIN PASSWORD '$owner';
CREATE ROLE uplift LOGIN PASSWORD '$app' IN ROLE uplift_app;
CREATE ROLE uplift_reader LOGIN PASSWORD '$reader' IN ROLE uplift_read;
CREATE DATABASE uplift OWNER uplift_owner ENCODING 'UTF8' TEMPLATE template0;
END
url() { # ROLE: its address, with its password in roles.sql
  printf 'postgresql://%s:%s@%s:5432/uplift' "$1" \
    "$(sed -n "s/^CREATE ROLE $1 LOGIN PASSWORD '\([0-9a-f]*\)'.*/\1/p" roles.sql)" "$postgres"
}
url uplift_owner | keep migration_database_url
url uplift | keep database_url
url uplift_reader | keep reader_database_url
random | keep redis_password
printf 'redis://:%s@%s:6379/0' "$(cat redis_password)" "$redis" | keep redis_url
# A password in Redis' arguments would be in the process list.
printf 'requirepass %s\nappendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\n' \
  "$(cat redis_password)" | keep redis.conf
printf 'main:%s' "$(head -c 32 /dev/urandom | base64 | tr -d '\n')" | keep master_keys
printf '%s' "$(head -c 32 /dev/urandom | base64 | tr -d '\n')" | keep id_key
# The sandbox takes any. For 1upHealth, write the one that they gave you into this file.
random | keep oneup_client_secret
printf 'uplift:%s' "$(random)" | keep flower_basic_auth
random | keep grafana_password
random | keep sandbox_control_token

echo "The secrets are in $(pwd). Keep a copy of master_keys and id_key elsewhere, apart from the backups."
