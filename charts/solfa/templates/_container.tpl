{{/* What goes into the service's container: variables (services/settings.py) and mounts. */}}

{{- define "solfa.mounts" -}}
- name: home
  mountPath: /var/lib/solfa
- name: tmp
  mountPath: /tmp
{{- if include "solfa.bucketClaim" . }}
- name: bucket
  mountPath: /var/lib/solfa-bucket
{{- end }}
{{- end }}

{{- define "solfa.databaseVariable" -}}
{{- with include "solfa.databaseSecret" . -}}
- name: SOLFA_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ if $.Values.database.existingSecret }}{{ $.Values.database.key }}{{ else }}url{{ end }}
{{- else -}}
- name: SOLFA_DATABASE_URL
  value: sqlite:////var/lib/solfa/solfa.db
{{- end }}
{{- end }}

{{- define "solfa.variables" -}}
{{- $bucket := include "solfa.bucketEnvironment" . | fromJson }}
{{- include "solfa.databaseVariable" . }}
{{- with include "solfa.adminVariable" (dict "root" . "variable" "SOLFA_ADMIN_TOKEN") }}
{{ . }}
{{- end }}
- name: SOLFA_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- $plain := dict
  "SOLFA_ACCESS" .Values.access.mode
  "SOLFA_BUCKET_URL" (.Values.bucket.url | default "file:///var/lib/solfa-bucket/objects")
  "SOLFA_CHECK_SOURCES" (toString .Values.checkSources)
  "SOLFA_CLUSTER" "kubernetes"
  "SOLFA_GPU_RESOURCE" .Values.training.gpuResource
  "SOLFA_QUEUE" .Values.training.queue
  "SOLFA_RELEASE" .Release.Name
  "SOLFA_REQUESTS_AT_ONCE" (toString (int .Values.limits.requestsAtOnce))
  "SOLFA_REQUESTS_PER_MINUTE" (toString (int .Values.limits.requestsPerMinute))
  "SOLFA_SHM_MB" (toString (int .Values.training.shmMb))
  "SOLFA_TRAINER_IMAGE" (include "solfa.image" (dict "root" . "image" .Values.images.trainer))
  "SOLFA_TRAINER_ENV" (toJson (merge (dict) .Values.training.environment $bucket))
  "SOLFA_TRAINER_METRICS_PORT" (toString (int .Values.training.metricsPort))
  "SOLFA_TRAINER_SERVICE_ACCOUNT" (include "solfa.trainerServiceAccount" .)
}}
{{- with .Values.limits.quotas }}{{ $_ := set $plain "SOLFA_QUOTAS" (toJson .) }}{{ end }}
{{- with .Values.limits.dataRoots }}{{ $_ := set $plain "SOLFA_DATA_ROOTS" (join "," .) }}{{ end }}
{{- with .Values.service.trustedProxies }}{{ $_ := set $plain "SOLFA_TRUSTED_PROXIES" (join "," .) }}{{ end }}
{{- with include "solfa.bucketClaim" . }}{{ $_ := set $plain "SOLFA_BUCKET_CLAIM" . }}{{ end }}
{{- with include "solfa.bucketSecret" . }}{{ $_ := set $plain "SOLFA_TRAINER_SECRET" . }}{{ end }}
{{- with .Values.training.slots }}{{ $_ := set $plain "SOLFA_SLOTS" (toString (int .)) }}{{ end }}
{{- with .Values.training.priorityClass }}{{ $_ := set $plain "SOLFA_PRIORITY_CLASS" . }}{{ end }}
{{- with .Values.training.dataClaims }}{{ $_ := set $plain "SOLFA_DATA_CLAIMS" (toJson .) }}{{ end }}
{{- with .Values.training.nodeSelector }}{{ $_ := set $plain "SOLFA_NODE_SELECTOR" (toJson .) }}{{ end }}
{{- with include "solfa.pullSecretNames" (dict "root" . "made" (include "solfa.registrySecret" .)) }}{{ $_ := set $plain "SOLFA_IMAGE_PULL_SECRETS" . }}{{ end }}
{{- range $name, $value := merge (dict) .Values.environment $bucket $plain }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
