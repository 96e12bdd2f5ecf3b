package uplift;

import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.FhirVersionEnum;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.JpaDstu2Config;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirPostgresDialect;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.provider.JpaConformanceProviderDstu2;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.jpa.subscription.match.config.SubscriptionProcessorConfig;
import ca.uhn.fhir.jpa.subscription.match.deliver.email.IEmailSender;
import ca.uhn.fhir.jpa.subscription.submit.config.SubscriptionSubmitterConfig;
import ca.uhn.fhir.jpa.term.TermLoaderSvcImpl;
import ca.uhn.fhir.jpa.term.api.ITermCodeSystemStorageSvc;
import ca.uhn.fhir.jpa.term.api.ITermDeferredStorageSvc;
import ca.uhn.fhir.model.dstu2.composite.MetaDt;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.interceptor.RequestValidatingInterceptor;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import ca.uhn.fhir.validation.IInstanceValidatorModule;
import jakarta.persistence.EntityManagerFactory;
import java.util.Properties;
import javax.sql.DataSource;
import org.apache.commons.dbcp2.BasicDataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.ApplicationContext;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/**
 * HAPI FHIR JPA on loopback, with the settings that HAPI has by default. The argument is the FHIR
 * version: {@code r4} or {@code dstu2}. With {@code validating} behind it, HL7's validator sees
 * each request first, and what it calls an error is a 422. Its data are in the database of {@code
 * HAPI_DATABASE}, a JDBC URL of PostgreSQL with user and password, else in H2 in memory. Its port
 * is that of {@code HAPI_PORT}, else a free one. Once it listens, it prints {@code listening on}
 * and its base. It ends when its standard input does.
 */
public final class Main {
  private static final String DATABASE =
      System.getenv().getOrDefault("HAPI_DATABASE", "jdbc:h2:mem:fhir;DB_CLOSE_DELAY=-1");
  private static final int PORT = Integer.parseInt(System.getenv().getOrDefault("HAPI_PORT", "0"));
  private static final int CONNECTIONS = 20;

  /** What both FHIR versions need. */
  @Configuration
  @Import({
    HapiJpaConfig.class,
    ThreadPoolFactoryConfig.class,
    JpaBatch2Config.class,
    Batch2JobsConfig.class,
    SubscriptionSubmitterConfig.class,
    SubscriptionChannelConfig.class,
    SubscriptionProcessorConfig.class
  })
  static class Common {
    @Bean
    JpaStorageSettings storageSettings() {
      return new JpaStorageSettings();
    }

    @Bean
    PartitionSettings partitionSettings() {
      return new PartitionSettings();
    }

    @Bean
    SubscriptionSettings subscriptionSettings() {
      return new SubscriptionSettings();
    }

    @Bean
    IEmailSender emailSender() {
      return details -> {};
    }

    @Bean(destroyMethod = "close")
    BasicDataSource dataSource() {
      BasicDataSource source = new BasicDataSource();
      source.setUrl(DATABASE);
      source.setMaxTotal(CONNECTIONS);
      source.setMaxIdle(CONNECTIONS); // else it closes those above 8 and opens them again
      return source;
    }

    @Bean
    LocalContainerEntityManagerFactoryBean entityManagerFactory(
        ConfigurableListableBeanFactory beans,
        FhirContext fhir,
        JpaStorageSettings settings,
        DataSource source) {
      Properties properties = new Properties();
      Class<?> dialect =
          DATABASE.startsWith("jdbc:postgresql:")
              ? HapiFhirPostgresDialect.class
              : HapiFhirH2Dialect.class;
      properties.put("hibernate.dialect", dialect.getName());
      properties.put("hibernate.hbm2ddl.auto", "update");
      properties.put("hibernate.search.enabled", "false");
      LocalContainerEntityManagerFactoryBean factory =
          HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, fhir, settings);
      factory.setPersistenceUnitName("fhir");
      factory.setDataSource(source);
      factory.setJpaProperties(properties);
      return factory;
    }

    @Bean
    @Primary
    JpaTransactionManager transactionManager(EntityManagerFactory factory) {
      return new JpaTransactionManager(factory);
    }
  }

  @Configuration
  @Import({Common.class, JpaR4Config.class})
  static class R4 {}

  @Configuration
  @Import({Common.class, JpaDstu2Config.class})
  static class Dstu2 {
    @Bean
    TermLoaderSvcImpl termLoader(
        ITermDeferredStorageSvc deferred, ITermCodeSystemStorageSvc codeSystems) {
      return new TermLoaderSvcImpl(deferred, codeSystems);
    }
  }

  /** The servlet, with HAPI's own providers. */
  private static RestfulServer servlet(ApplicationContext context) {
    FhirContext fhir = context.getBean(FhirContext.class);
    boolean dstu2 = fhir.getVersion().getVersion() == FhirVersionEnum.DSTU2;
    String version = dstu2 ? "Dstu2" : "R4";
    RestfulServer server = new RestfulServer(fhir);
    server.registerProviders(
        context.getBean("myResourceProviders" + version, ResourceProviderFactory.class)
            .createProviders());
    server.registerProvider(context.getBean("mySystemProvider" + version));
    JpaStorageSettings settings = context.getBean(JpaStorageSettings.class);
    if (dstu2) {
      @SuppressWarnings("unchecked")
      IFhirSystemDao<ca.uhn.fhir.model.dstu2.resource.Bundle, MetaDt> dao =
          context.getBean("mySystemDaoDstu2", IFhirSystemDao.class);
      server.setServerConformanceProvider(new JpaConformanceProviderDstu2(server, dao, settings));
    } else {
      server.setServerConformanceProvider(
          new JpaCapabilityStatementProvider(
              server,
              context.getBean("mySystemDaoR4", IFhirSystemDao.class),
              settings,
              context.getBean(ISearchParamRegistry.class),
              context.getBean(IValidationSupport.class)));
    }
    server.setPagingProvider(context.getBean(DatabaseBackedPagingProvider.class));
    return server;
  }

  public static void main(String[] arguments) throws Exception {
    Class<?> configuration = "dstu2".equals(arguments[0]) ? Dstu2.class : R4.class;
    ApplicationContext context = new AnnotationConfigApplicationContext(configuration);
    Server jetty = new Server();
    ServerConnector connector = new ServerConnector(jetty);
    connector.setHost("127.0.0.1");
    connector.setPort(PORT);
    jetty.addConnector(connector);
    RestfulServer server = servlet(context);
    if (arguments.length > 1 && "validating".equals(arguments[1])) {
      RequestValidatingInterceptor validating = new RequestValidatingInterceptor();
      validating.addValidatorModule(context.getBean(IInstanceValidatorModule.class));
      server.registerInterceptor(validating);
    }
    ServletContextHandler handler = new ServletContextHandler("/");
    handler.addServlet(new ServletHolder(server), "/fhir/*");
    jetty.setHandler(handler);
    jetty.start();
    System.out.println("listening on http://127.0.0.1:" + connector.getLocalPort() + "/fhir");
    while (System.in.read() >= 0) {
      // Only its end says something.
    }
    System.exit(0);
  }

  private Main() {}
}
