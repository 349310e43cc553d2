"""Questions about access that are asked by creating an object and answered in its status; nothing is stored.

``kubectl auth can-i`` and ``auth whoami`` ask them, and so does whoever delegates its decisions to the masters.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from msgspec.structs import replace

from api.errors import Fault, invalid
from api.faults import required
from api.kinds.authentication import (
    SelfSubjectReview,
    SelfSubjectReviewStatus,
    TokenReview,
    TokenReviewStatus,
    UserInfo,
)
from api.kinds.authorization import (
    LocalSubjectAccessReview,
    NonResourceAttributes,
    NonResourceRule,
    ResourceAttributes,
    ResourceRule,
    SelfSubjectAccessReview,
    SelfSubjectRulesReview,
    SubjectAccessReview,
    SubjectAccessReviewStatus,
    SubjectRulesReviewStatus,
)
from api.meta import Resource
from master.access.authentication import Authenticator
from master.access.authorization import Authorizer, Request
from master.access.user import User

_Answer = Callable[[Any, User], Coroutine[Any, Any, Resource]]


class Reviews:
    """Answers each kind of review."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._answers: Mapping[type[Resource], _Answer] = {
            SelfSubjectAccessReview: self._self_access,
            SubjectAccessReview: self._access,
            LocalSubjectAccessReview: self._local_access,
            SelfSubjectRulesReview: self._rules,
            SelfSubjectReview: self._self,
            TokenReview: self._token,
        }

    def answers(self, model: type[Resource]) -> bool:
        """Return whether objects of ``model`` are answered here instead of being stored."""
        return model in self._answers

    async def answer(self, obj: Resource, user: User) -> Resource:
        """Return ``obj`` with its status; raises Invalid for a question that asks nothing or two things."""
        return await self._answers[type(obj)](obj, user)

    async def _self_access(self, obj: SelfSubjectAccessReview, user: User) -> Resource:
        spec = obj.spec
        request = _request(obj, user, spec.resource_attributes, spec.non_resource_attributes)
        return replace(obj, status=await self._decide(request))

    async def _access(self, obj: SubjectAccessReview | LocalSubjectAccessReview, user: User) -> Resource:
        del user
        spec = obj.spec
        if not spec.user and not spec.groups:
            faults = [Fault("spec.user", "Required value: at least one of user or group must be specified")]
            raise invalid(obj.kind, "", faults, group="authorization.k8s.io")
        subject = User(spec.user, spec.groups, spec.uid, spec.extra)
        request = _request(obj, subject, spec.resource_attributes, spec.non_resource_attributes)
        return replace(obj, status=await self._decide(request))

    async def _local_access(self, obj: LocalSubjectAccessReview, user: User) -> Resource:
        attributes = obj.spec.resource_attributes
        if attributes is None or attributes.namespace != obj.metadata.namespace:
            where = "spec.resourceAttributes.namespace"
            faults = [Fault(where, f'Invalid value: must be "{obj.metadata.namespace}", the namespace of the review')]
            raise invalid(obj.kind, "", faults, group="authorization.k8s.io")
        return await self._access(obj, user)

    async def _decide(self, request: Request) -> SubjectAccessReviewStatus:
        decision = await self._authorizer.decide(request)
        return SubjectAccessReviewStatus(allowed=decision.allowed, reason=decision.reason)

    async def _rules(self, obj: SelfSubjectRulesReview, user: User) -> Resource:
        rules, missing = await self._authorizer.rules_for(user, obj.spec.namespace)
        resource_rules = tuple(
            ResourceRule(
                verbs=each.verbs,
                api_groups=each.api_groups,
                resources=each.resources,
                resource_names=each.resource_names,
            )
            for each in rules
            if each.resources
        )
        path_rules = tuple(
            NonResourceRule(verbs=each.verbs, non_resource_urls=each.non_resource_urls)
            for each in rules
            if each.non_resource_urls
        )
        status = SubjectRulesReviewStatus(
            incomplete=bool(missing),
            evaluation_error=missing,
            resource_rules=resource_rules,
            non_resource_rules=path_rules,
        )
        return replace(obj, status=status)

    async def _self(self, obj: SelfSubjectReview, user: User) -> Resource:
        return replace(obj, status=SelfSubjectReviewStatus(user_info=_user_info(user)))

    async def _token(self, obj: TokenReview, user: User) -> Resource:
        del user
        if not obj.spec.token:
            raise invalid(obj.kind, "", [required("spec.token")], group="authentication.k8s.io")
        reviewed = await self._authenticator.review(obj.spec.token, obj.spec.audiences)
        if reviewed is None:
            error = "[invalid bearer token, no verifier knows it, or it is for other audiences]"
            return replace(obj, status=TokenReviewStatus(authenticated=False, error=error))
        bearer = _user_info(reviewed.user)
        return replace(obj, status=TokenReviewStatus(authenticated=True, user=bearer, audiences=reviewed.audiences))


def _user_info(user: User) -> UserInfo:
    return UserInfo(username=user.name, groups=user.groups, uid=user.uid, extra=dict(user.extra))


def _request(
    obj: Resource, user: User, resource: ResourceAttributes | None, path: NonResourceAttributes | None
) -> Request:
    if (resource is None) == (path is None):
        what = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(
            obj.kind, "", [Fault("spec.resourceAttributes", f"Invalid value: {what}")], group="authorization.k8s.io"
        )
    if path is not None:
        return Request(user, path.verb, path=path.path)
    assert resource is not None
    return Request(
        user,
        resource.verb,
        resource.group,
        resource.resource,
        resource.subresource,
        resource.namespace,
        resource.name,
    )
