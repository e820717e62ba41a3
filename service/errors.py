"""What the service refuses, each with the HTTP status that says whose turn it is.

ServiceError
├── BadRequestError      400  a body that is not what the OpenAPI document says
├── UnauthorizedError    401  no session, or one that ended
├── ForbiddenError       403  a wallet without the stake that it takes
├── NotFoundError        404
├── ConflictError        409  the same revision twice, or an epoch that is not open
├── ExpiredError         410  a lease that ran out
├── RejectedError        422  a ranking that says something wrong
├── RateError            429  more than is taken (service.rates)
├── UnavailableError     503  the chain cannot be reached; nothing was recorded
├── ClusterError              the Ray cluster cannot be reached, or refuses; the job waits for the next try
└── ConfigError               settings that cannot work; the program does not start
"""

from __future__ import annotations

from chain.errors import HapticError


class ServiceError(HapticError):
    """Root of what the service refuses; `status` is the HTTP status."""

    status = 500


class BadRequestError(ServiceError):
    """A body that is not what the OpenAPI document says."""

    status = 400


class UnauthorizedError(ServiceError):
    """No session, or one that ended."""

    status = 401


class ForbiddenError(ServiceError):
    """Known who asks, but it has not the stake that it takes."""

    status = 403


class NotFoundError(ServiceError):
    """There is no such thing."""

    status = 404


class ConflictError(ServiceError):
    """It contradicts what already stands."""

    status = 409


class ExpiredError(ServiceError):
    """The time for it is over."""

    status = 410


class RejectedError(ServiceError):
    """Well formed, but not valid."""

    status = 422


class UnavailableError(ServiceError):
    """The chain cannot be reached; nothing was recorded, try again."""

    status = 503


class ClusterError(ServiceError):
    """The Ray cluster cannot be reached, or refuses; the job waits for the next try."""


class ConfigError(ServiceError):
    """Settings that cannot work; the program does not start."""
