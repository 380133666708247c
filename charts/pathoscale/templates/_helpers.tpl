{{/* Name of everything in the release: the release's own name if it says pathoscale. */}}
{{- define "pathoscale.name" -}}
{{- if contains "pathoscale" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-pathoscale" (.Release.Name | trunc 39) }}{{ end -}}
{{- end -}}

{{- define "pathoscale.selector" -}}
app.kubernetes.io/name: pathoscale-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pathoscale.labels" -}}
{{ include "pathoscale.selector" . }}
app.kubernetes.io/part-of: pathoscale
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Name of the Lease: releases in one namespace lead side by side. */}}
{{- define "pathoscale.lease" -}}
{{ include "pathoscale.name" . }}-operator
{{- end -}}

{{- define "pathoscale.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "pathoscale.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end -}}
{{- end -}}

{{- define "pathoscale.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}

{{/* Both meet the restricted Pod Security Standard. */}}
{{- define "pathoscale.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "pathoscale.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Who may read metrics and progress of runs, as JSON: with metricsFrom the operator and those, else anybody. */}}
{{- define "pathoscale.metricsFrom" -}}
{{- $operator := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace)) "podSelector" (dict "matchLabels" (include "pathoscale.selector" . | fromYaml)) -}}
{{- with .Values.networkPolicy.metricsFrom }}{{ prepend . $operator | toJson }}{{ else }}[]{{ end -}}
{{- end -}}

{{/* What the operator does in the namespaces it watches, and nothing more. */}}
{{- define "pathoscale.rules" -}}
- apiGroups: [pathoscale.dev]
  resources: [pathopretrains, pathoevals]
  verbs: [get, list, watch, delete]   # delete: ttlSecondsAfterFinished
- apiGroups: [pathoscale.dev]
  resources: [pathoevals]
  verbs: [create]                     # spec.evaluations
- apiGroups: [pathoscale.dev]
  resources: [pathopretrains/status, pathoevals/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create]                # one for a run; its owner's end deletes it
{{- if .Values.networkPolicy.runs }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch]   # one for a run, likewise; list, patch: live ones follow changed values
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]        # the Job controller makes them; delete: those on nodes that do not answer
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]                      # such a pod is Failed, or its Job would wait for it
- apiGroups: [""]
  resources: [events]
  verbs: [create, get, patch, list]   # get, patch: what is said again is counted; list: why a pod waits, in the scheduler's words
{{- end -}}
