/* A web server that does nothing: 200 with the time of its own start and, if a shell has set it, that of the shell's. One connection at a
   time, kept alive; seconds since the epoch. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char request[65536];

static void serve(int client, const char *body)
{
	char answer[512];
	int length = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	size_t have = 0;
	ssize_t n;
	while ((n = read(client, request + have, sizeof request - 1 - have)) > 0) {
		have += n;
		request[have] = 0;
		if (!strstr(request, "\r\n\r\n"))
			continue;
		have = 0;
		if (write(client, answer, length) != length)
			return;
	}
}

int main(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	const char *shell = getenv("BOOT_AT"), *port = getenv("PORT");
	char body[128];
	snprintf(body, sizeof body, "%lld.%09ld %s\n", (long long)now.tv_sec, now.tv_nsec, shell ? shell : "-");
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port ? atoi(port) : 5000), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 128)) {
		perror("listen");
		return 1;
	}
	for (;;) {
		int client = accept(listener, NULL, NULL);
		if (client < 0)
			continue;
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		serve(client, body);
		close(client);
	}
}
