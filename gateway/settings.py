"""Every setting of Weir, in one file.

Each is read from the environment, has a default that works on a laptop, and is listed in
docs/operations.md. With ``DEBUG`` off, a default that would be unsafe refuses to start.
"""

from __future__ import annotations

import json
import secrets
from decimal import Decimal
from pathlib import Path
from typing import Any

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()


def laptop_secrets(data_dir: Path) -> dict[str, str]:
    """Secrets for a machine that was given none: made once, kept in ``secrets.json`` (mode 0600).

    Returns the keys ``SECRET_KEY``, ``API_KEY_PEPPER`` and ``CREDENTIAL_KEYS``.
    """
    path = data_dir / "secrets.json"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        made = {
            "SECRET_KEY": secrets.token_urlsafe(50),
            "API_KEY_PEPPER": secrets.token_urlsafe(32),
            "CREDENTIAL_KEYS": Fernet.generate_key().decode(),
        }
        draft = path.with_name(f"secrets.{secrets.token_hex(4)}.tmp")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(made))
        try:
            # A hard link fails if another process was first, so all processes read one file.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded


# --- Where this copy keeps its data ------------------------------------------------------------

# WEIR_DATA_DIR: the journal, the embedded services, secrets made for a laptop.
WEIR_DATA_DIR = Path(env.str("WEIR_DATA_DIR", default=str(BASE_DIR / "var"))).resolve()
# DEBUG: tracebacks in the browser and laptop defaults. Never on where others can reach the port.
DEBUG: bool = env.bool("DEBUG", default=True)

_laptop = laptop_secrets(WEIR_DATA_DIR) if DEBUG else {}


def required_secret(name: str) -> str:
    """The secret ``name`` from the environment; on a laptop, the one made for it."""
    value: str = env.str(name, default=_laptop.get(name, ""))
    if not value:
        raise ImproperlyConfigured(f"{name} must be set when DEBUG is off.")
    return value


# SECRET_KEY: signs cookies and links.
SECRET_KEY = required_secret("SECRET_KEY")
# API_KEY_PEPPER: keys the digest under which API keys are stored. Changing it voids every key.
API_KEY_PEPPER = required_secret("API_KEY_PEPPER")
# CREDENTIAL_KEYS: Fernet keys, comma-separated. The first encrypts, all decrypt.
CREDENTIAL_KEYS = [key.strip() for key in required_secret("CREDENTIAL_KEYS").split(",") if key.strip()]

# ALLOWED_HOSTS: host names the console answers to.
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["*"] if DEBUG else [])
# PUBLIC_URL: where people and apps reach this gateway; used in snippets and e-mails.
PUBLIC_URL: str = env.str("PUBLIC_URL", default="http://127.0.0.1:8000").rstrip("/")
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
if not DEBUG:
    if not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS:
        raise ImproperlyConfigured("ALLOWED_HOSTS must name the console's hosts when DEBUG is off.")
    if not env.str("DATABASE_URL", default=""):
        raise ImproperlyConfigured("DATABASE_URL must be set when DEBUG is off.")
    if len(SECRET_KEY) < 50:
        raise ImproperlyConfigured("SECRET_KEY must have at least 50 characters when DEBUG is off.")
    for _key in CREDENTIAL_KEYS:
        try:
            Fernet(_key)
        except ValueError:
            raise ImproperlyConfigured(
                "CREDENTIAL_KEYS must be Fernet keys (44 characters, base64)."
            ) from None
    # COOKIE_SECURE: off only behind plain HTTP on a trusted network.
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("COOKIE_SECURE", default=True)
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=31_536_000)

# --- Applications ------------------------------------------------------------------------------

INSTALLED_APPS = [
    "tenants",
    "routing",
    "billing",
    "gateway",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gateway.middleware.CompressedPages",
    "gateway.middleware.SecurityHeaders",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "tenants.middleware.TenantScope",
    "gateway.single_sign_on.sessions.OidcOnly",
    "gateway.second_factor.SecondFactor",
]

ROOT_URLCONF = "gateway.urls"
ASGI_APPLICATION = "gateway.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "tenants.context.organization",
            ]
        },
    }
]

# --- Services ----------------------------------------------------------------------------------

# DATABASE_URL: PostgreSQL 15 or newer. Unset, manage.py starts an embedded one in WEIR_DATA_DIR.
DATABASE_URL: str = env.str("DATABASE_URL", default="postgresql://127.0.0.1:1/unset")
DATABASES = {"default": env.db_url_config(DATABASE_URL)}
DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
# A socket's directory arrives among the options; where it belongs, Django's own tools find it too.
DATABASES["default"]["HOST"] = (
    DATABASES["default"].get("OPTIONS", {}).pop("host", None) or DATABASES["default"]["HOST"]
)
# A server that is gone without a word is given up within half a minute; libpq alone waits for two hours.
DATABASES["default"]["OPTIONS"] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    **DATABASES["default"].get("OPTIONS", {}),
}
# DATABASE_ROLE: the role that connections work as; weir_app may add to the books and not change them.
DATABASE_ROLE: str = env.str("DATABASE_ROLE", default="")
if DATABASE_ROLE:
    _options = DATABASES["default"]["OPTIONS"]
    _options["options"] = f"{_options.get('options', '')} -c role={DATABASE_ROLE}".strip()
DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", default=0)
DATABASES["default"]["ATOMIC_REQUESTS"] = False
# REDIS_URL: rate limits and Celery's broker. Unset, manage.py starts an embedded one.
REDIS_URL: str = env.str("REDIS_URL", default="redis://127.0.0.1:1/0")

# Celery has names of its own for a socket and for the number of a database on it.
CELERY_BROKER_URL = (
    REDIS_URL.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    if "unix://" in REDIS_URL
    else REDIS_URL
)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
# A long task keeps no others waiting behind it.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_TIME_LIMIT = 600
CELERY_TASK_SOFT_TIME_LIMIT = 540
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

# --- Sign-in -----------------------------------------------------------------------------------

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_REDIRECT_URL = "/"
LOGIN_URL = "/accounts/login/"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
# EMAIL_VERIFICATION: mandatory (nobody signs in before), optional (a link is sent) or none.
ACCOUNT_EMAIL_VERIFICATION: str = env.str("EMAIL_VERIFICATION", default="optional" if DEBUG else "mandatory")
if ACCOUNT_EMAIL_VERIFICATION not in {"mandatory", "optional", "none"}:
    raise ImproperlyConfigured("EMAIL_VERIFICATION must be mandatory, optional or none.")
# Whoever follows the link in the browser in which they signed up is in at once.
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
# CONFIRMATION_MINUTES: for so long after a person proved who they are, danger does not ask again.
ACCOUNT_REAUTHENTICATION_TIMEOUT = env.int("CONFIRMATION_MINUTES", default=15) * 60
if ACCOUNT_REAUTHENTICATION_TIMEOUT <= 0:
    raise ImproperlyConfigured("CONFIRMATION_MINUTES must be at least 1.")
# Changes to one's addresses and ways in ask for it, as changes to passkeys and codes do.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_ADAPTER = "gateway.single_sign_on.accounts.AccountAdapter"
SOCIALACCOUNT_ADAPTER = "gateway.single_sign_on.accounts.SocialAccountAdapter"
# SIGN_UP: who may make an account: open (everybody, and organizations too), invited, closed (nobody).
SIGN_UP: str = env.str("SIGN_UP", default="open" if DEBUG else "invited")
if SIGN_UP not in {"open", "invited", "closed"}:
    raise ImproperlyConfigured("SIGN_UP must be open, invited or closed.")
# SIGN_UP_CREDIT: US dollars an organization that its owner made may owe; 0: it pays in advance.
SIGN_UP_CREDIT = Decimal(env.str("SIGN_UP_CREDIT", default="5" if DEBUG else "0"))
if not (SIGN_UP_CREDIT.is_finite() and SIGN_UP_CREDIT >= 0):
    raise ImproperlyConfigured("SIGN_UP_CREDIT must be a number of dollars, 0 or more.")
# SIGN_UP_PLAN: name of the plan such an organization is on; empty: none.
SIGN_UP_PLAN: str = env.str("SIGN_UP_PLAN", default="")
ACCOUNT_RATE_LIMITS = {
    "login_failed": "10/m/ip,5/5m/key",
    # Each asks an organization's provider, and whole offices begin their day behind one address.
    "single_sign_on": "60/m/ip",
    "domain_check": "10/m/user",
}
# They are counted in PostgreSQL, which signing in needs anyway, so that every process counts the same.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "tenants_attempts",
        "OPTIONS": {"MAX_ENTRIES": 20_000},
    }
}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
# Browsers take passkeys over plain http from localhost alone, where Weir is tried out.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = DEBUG
MFA_TOTP_ISSUER = "Weir"
# OIDC: JSON list of django-allauth OpenID Connect apps ({provider_id, name, client_id, secret, settings})
# of the whole gateway; organizations set their own in the console.
# A link leads there. A form could not: browsers hold to the content security policy where a form is redirected.
SOCIALACCOUNT_LOGIN_ON_GET = True
SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": env.json("OIDC", default=[])}}
EMAIL_CONFIG = env.email_url("EMAIL_URL", default="consolemail://")
vars().update(EMAIL_CONFIG)
# MAIL_FROM: the sender of invitations and password resets.
DEFAULT_FROM_EMAIL: str = env.str("MAIL_FROM", default="weir@localhost")
# OPERATOR_EMAILS: who is told of providers that fail, addresses between commas; empty: nobody.
OPERATOR_EMAILS: list[str] = env.list("OPERATOR_EMAILS", default=[])
if not all("@" in address for address in OPERATOR_EMAILS):
    raise ImproperlyConfigured("OPERATOR_EMAILS must be e-mail addresses between commas.")
# WEBHOOK_PRIVATE_ADDRESSES: whether notifications may go to private networks and organizations' sign-in
# providers be in them, and over plain http.
WEBHOOK_PRIVATE_ADDRESSES: bool = env.bool("WEBHOOK_PRIVATE_ADDRESSES", default=DEBUG)

# DNS_RESOLVER: IP addresses of name servers between commas, each with a port if it is not 53; empty: the machine's.
DNS_RESOLVER: list[str] = env.list("DNS_RESOLVER", default=[])
# DNS_SECONDS: how long they have to answer.
DNS_SECONDS: float = env.float("DNS_SECONDS", default=3.0)

# --- The data plane ----------------------------------------------------------------------------

# MAX_BODY_BYTES: a larger request body is refused with 413.
MAX_BODY_BYTES: int = env.int("MAX_BODY_BYTES", default=16 * 1024 * 1024)
# MAX_ANSWER_BYTES: a larger plain answer of a provider is not read to its end; the attempt failed.
MAX_ANSWER_BYTES: int = env.int("MAX_ANSWER_BYTES", default=64 * 1024 * 1024)
# RESPONSE_DAYS: days that a kept response of /v1/responses lives.
RESPONSE_DAYS: int = env.int("RESPONSE_DAYS", default=30)
# KEEP_DETAILS_DAYS: days after which the details of requests are removed, whatever organizations choose; 0: never.
KEEP_DETAILS_DAYS: int = env.int("KEEP_DETAILS_DAYS", default=0)
if KEEP_DETAILS_DAYS and not 30 <= KEEP_DETAILS_DAYS <= 3650:
    raise ImproperlyConfigured("KEEP_DETAILS_DAYS must be 0, or from 30 to 3650.")
# IDEMPOTENCY_HOURS: how long the answer to a request with an Idempotency-Key is kept, in Redis.
IDEMPOTENCY_HOURS: int = env.int("IDEMPOTENCY_HOURS", default=24)
# IDEMPOTENCY_MAX_BYTES: a larger answer is not kept; asking again with its key is then a 409.
IDEMPOTENCY_MAX_BYTES: int = env.int("IDEMPOTENCY_MAX_BYTES", default=2 * 1024 * 1024)
# MAX_IN_FLIGHT: requests a worker serves at a time; one more is refused with 503 at once.
MAX_IN_FLIGHT: int = env.int("MAX_IN_FLIGHT", default=2000)
# MAX_BUFFERED_BYTES: bytes of request bodies a worker holds at a time; beyond it 503 at once.
MAX_BUFFERED_BYTES: int = env.int("MAX_BUFFERED_BYTES", default=256 * 1024 * 1024)
# MAX_UPLOAD_BYTES: a larger form (audio, pictures to edit) is refused with 413.
MAX_UPLOAD_BYTES: int = env.int("MAX_UPLOAD_BYTES", default=256 * 1024 * 1024)
# MAX_SPOOLED_BYTES: bytes of forms a worker holds on disk at a time; beyond it 503 at once.
MAX_SPOOLED_BYTES: int = env.int("MAX_SPOOLED_BYTES", default=2 * 1024 * 1024 * 1024)
# UPLOAD_DIR: where they lie while they are sent, in files without names; not a file system in memory.
UPLOAD_DIR = Path(env.str("UPLOAD_DIR", default=str(WEIR_DATA_DIR / "uploads")))
# ABANDONED_SECONDS, ABANDONED_TOKENS: after its client has left, a provider goes on for so long at
# most, and for about so many tokens, so that its real usage is known; 0 seconds: it is stopped at once.
ABANDONED_SECONDS: float = env.float("ABANDONED_SECONDS", default=0.8)
ABANDONED_TOKENS: int = env.int("ABANDONED_TOKENS", default=256)
# SHUTDOWN_DELAY_SECONDS: how long a worker that is asked to end takes new requests while /healthz fails.
SHUTDOWN_DELAY_SECONDS: float = env.float("SHUTDOWN_DELAY_SECONDS", default=0.0)
# SHUTDOWN_SECONDS: how long its requests may then take to finish; new ones are refused meanwhile.
SHUTDOWN_SECONDS: float = env.float("SHUTDOWN_SECONDS", default=30.0)
# RELOAD_POLL_SECONDS: how often a worker looks for changes if a notification was lost.
RELOAD_POLL_SECONDS: float = env.float("RELOAD_POLL_SECONDS", default=5.0)
# PROBE_SECONDS: how often Celery looks for deployments to probe whose pause ends by the next look; 0: never.
PROBE_SECONDS: float = env.float("PROBE_SECONDS", default=2.0)
# ACCOUNTING_SAMPLE: of which share of the answers (0 to 1) the gateway counts the tokens itself, to compare.
ACCOUNTING_SAMPLE: float = env.float("ACCOUNTING_SAMPLE", default=0.01)
# SHIP_INTERVAL_SECONDS: how often the shipper looks into the journal.
SHIP_INTERVAL_SECONDS: float = env.float("SHIP_INTERVAL_SECONDS", default=0.1)

# --- Money --------------------------------------------------------------------------------------

# PAYMENTS: how customers pay into their wallet: stripe, dummy (takes no money), or empty for not at all.
# STRIPE_SECRET_KEY, STRIPE_WEBHOOK_SECRET: of the Stripe account; the webhook's address is
# PUBLIC_URL/payments/stripe/.
STRIPE_SECRET_KEY: str = env.str("STRIPE_SECRET_KEY", default="")
STRIPE_WEBHOOK_SECRET: str = env.str("STRIPE_WEBHOOK_SECRET", default="")
# STRIPE_API_BASE: where Stripe answers; another address only for tests.
STRIPE_API_BASE: str = env.str("STRIPE_API_BASE", default="https://api.stripe.com")
PAYMENTS: str = env.str("PAYMENTS", default="stripe" if STRIPE_SECRET_KEY else "dummy" if DEBUG else "")
if PAYMENTS not in {"stripe", "dummy", ""}:
    raise ImproperlyConfigured("PAYMENTS must be stripe, dummy or empty.")
if PAYMENTS == "stripe" and not (STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET):
    raise ImproperlyConfigured("STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET must be set for PAYMENTS=stripe.")

# STATEMENT_PREFIX: what the numbers of statements begin with.
STATEMENT_PREFIX: str = env.str("STATEMENT_PREFIX", default="WEIR")
# STATEMENT_ISSUER: who issues statements: a name, then lines of address, separated by "|".
STATEMENT_ISSUER: str = "\n".join(
    part.strip() for part in env.str("STATEMENT_ISSUER", default="Weir").split("|")
)
# STATEMENT_FONT: a TrueType file for statements, where names need other letters than western European ones.
STATEMENT_FONT: str = env.str("STATEMENT_FONT", default="")

# EXPORT_DIR: where exported files lie until they expire; one disk for the console and the workers.
EXPORT_DIR = Path(env.str("EXPORT_DIR", default=str(WEIR_DATA_DIR / "exports"))).resolve()
# EXPORT_KEPT_HOURS: how long an exported file can be fetched.
EXPORT_KEPT_HOURS: int = env.int("EXPORT_KEPT_HOURS", default=168)
# EXPORTS_AT_ONCE: how many exports are made at the same time; leave Celery's workers processes for all else.
EXPORTS_AT_ONCE: int = env.int("EXPORTS_AT_ONCE", default=1)

# --- The rest ----------------------------------------------------------------------------------

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = WEIR_DATA_DIR / "static"
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_AUTOREFRESH = DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "stripe": {"level": "WARNING"},
    },
}
