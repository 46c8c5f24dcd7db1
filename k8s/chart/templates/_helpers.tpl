{{/* Labels of a part. Takes (dict "root" $ "component" "api"). */}}
{{- define "loramill.selector" -}}
app.kubernetes.io/name: loramill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "loramill.labels" -}}
{{ include "loramill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: loramill
{{- end }}

{{- define "loramill.name" -}}
{{ .root.Release.Name }}-{{ .component }}
{{- end }}

{{- define "loramill.metadata" -}}
name: {{ include "loramill.name" . }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "loramill.labels" . | nindent 2 }}
{{- end }}

{{/* What every pod says about itself: no identity in the cluster, no rights, and no variables named after services,
of which API_PORT and REDIS_PORT would be taken for settings. */}}
{{- define "loramill.pod" -}}
serviceAccountName: {{ .root.Release.Name }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user | default 10001 }}
  runAsGroup: {{ .group | default 10001 }}
  fsGroup: {{ .group | default 10001 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "loramill.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Variables from the Secret. Takes (dict "root" $ "names" (list "JWT_SECRET")). */}}
{{- define "loramill.secrets" -}}
{{- range .names }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.root.Values.secret.name }}
      key: {{ . }}
{{- end }}
{{- end }}

{{- define "loramill.homeMounts" -}}
- name: home
  mountPath: /var/lib/loramill
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "loramill.homeVolumes" -}}
- name: home
  persistentVolumeClaim:
    claimName: {{ .Values.home.existingClaim | default (printf "%s-home" .Release.Name) }}
- name: tmp
  emptyDir: {}
{{- end }}

{{/* Probes of a service that answers HTTP. Takes (dict "live" PATH "ready" PATH). */}}
{{- define "loramill.probes" -}}
startupProbe:
  httpGet:
    path: {{ .live }}
    port: http
  periodSeconds: 2
  failureThreshold: 90
readinessProbe:
  httpGet:
    path: {{ .ready }}
    port: http
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet:
    path: {{ .live }}
    port: http
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 4
{{- end }}

{{/* New connections stop arriving before the process is told to end. */}}
{{- define "loramill.leave" -}}
lifecycle:
  preStop:
    exec:
      command: [sleep, "5"]
{{- end }}

{{/* Rolling: never fewer than there should be. */}}
{{- define "loramill.rolling" -}}
strategy:
  type: RollingUpdate
  rollingUpdate:
    maxUnavailable: 0
    maxSurge: 1
{{- end }}

{{- define "loramill.scrape" -}}
{{- if not .root.Values.monitoring.serviceMonitor }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{/* Pods are made anew when what they read at their start has changed. */}}
{{- define "loramill.checksum" -}}
checksum/config: {{ include (print .Template.BasePath "/config.yaml") . | sha256sum }}
{{- end }}

{{/* Who may connect, or be connected to. */}}
{{- define "loramill.peer" -}}
podSelector:
  matchLabels:
    {{- include "loramill.selector" . | nindent 4 }}
{{- end }}

{{- define "loramill.fromNamespaces" -}}
{{- range . }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- end }}
